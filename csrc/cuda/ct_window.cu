// CT windowing on the GPU. See kernels/ct_window.cuh.
#include <optional>
#include <vector>

#include "cuda/common/cuda.h"
#include "kernels/ct_window.cuh"

namespace ichfast {
namespace {

using namespace ct_window;

// Slope, intercept and windows are read where they lie, by the kernel: to look at them here would
// stall the stream. A window that the CPU refuses gives NaN.
Tensor ct_window_cuda(const Tensor& stored, const Tensor& slope, const Tensor& intercept,
                      const Tensor& windows, std::vector<int64_t> size,
                      const std::string& function_name, std::optional<double> padding, bool invert,
                      ScalarType dtype) {
  const Function function =
      check_ct_window(stored, slope, intercept, windows, size, function_name, dtype);
  const CudaLaunch launch(stored);
  const Shape shape{stored.size(0),  stored.size(1), stored.size(2),
                    windows.size(0), size[0],        size[1]};
  Tensor result = torch::stable::new_empty(
      stored, {shape.images, shape.windows, shape.out_height, shape.out_width}, dtype);
  const Options options{function, invert, padding.has_value(), padding.value_or(0.0)};
  const auto images = input<Number>(stored, {stored.stride(0), stored.stride(1), stored.stride(2)});
  const auto slopes = input<Number>(slope, {slope.stride(0), 0, 0});
  const auto intercepts = input<Number>(intercept, {intercept.stride(0), 0, 0});
  const auto levels = input<Number>(windows, {windows.stride(0), windows.stride(1), 0});
  const auto out = output<Floating>(result, {});
  if (needs_double(stored))
    forward<double>(launch, images, slopes, intercepts, levels, shape, options, out);
  else
    forward<float>(launch, images, slopes, intercepts, levels, shape, options, out);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("ct_window", TORCH_BOX(&ct_window_cuda));
}

}  // namespace ichfast
