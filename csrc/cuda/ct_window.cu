// CT windowing on the GPU. See kernels/ct_window.cuh.
#include "ops/ct_window.h"

#include "cuda/common/cuda.h"
#include "kernels/ct_window.cuh"

namespace ichfast {
namespace {

using namespace ct_window;

// Slope, intercept and windows are read where they lie, by the kernel: to look at them here would
// stall the stream. A window that the CPU refuses gives NaN.
void forward_cuda(const Arguments& arguments, Tensor& result) {
  const auto& [stored, slope, intercept, windows, function, padding, invert] = arguments;
  const CudaLaunch launch(stored);
  const Shape shape{stored.size(0),  stored.size(1), stored.size(2),
                    windows.size(0), result.size(2), result.size(3)};
  const Options options{function, invert, padding.has_value(), padding.value_or(0.0)};
  const auto images = input<Number>(stored, {stored.stride(0), stored.stride(1), stored.stride(2)});
  const auto slopes = numbers<Number>(slope), intercepts = numbers<Number>(intercept);
  const auto levels = input<Number>(windows, {windows.stride(0), windows.stride(1), 0});
  const auto out = output<Floating>(result, {});
  if (arguments.in_double())
    forward<double>(launch, images, slopes, intercepts, levels, shape, options, out);
  else
    forward<float>(launch, images, slopes, intercepts, levels, shape, options, out);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("ct_window", TORCH_BOX(&forward_op<forward_cuda>));
}

}  // namespace ichfast
