// Strong views on the GPU. See kernels/strong_view.cuh.
#include "ops/strong_view.h"

#include "cuda/common/dispatch.h"
#include "kernels/strong_view.cuh"

namespace ichfast {
namespace {

using namespace strong_view;

// The images' numbers are read where they lie, by the kernel: to look at them here would stall the
// stream. What the CPU refuses gives NaN.
void forward_cuda(const Arguments& arguments, Tensor& result) {
  const auto& [image, gamma, blur, noise, seed] = arguments;
  const CudaLaunch launch(result);
  const Numbers numbers{input<Floating>(gamma, {gamma.stride(0), 0, 0}),
                        input<Floating>(blur, {blur.stride(0), 0, 0}),
                        input<Floating>(noise, {noise.stride(0), 0, 0}),
                        seed.const_data_ptr<int64_t>(), seed.stride(0)};
  const Shape shape{image.size(0), image.size(2), image.size(3)};
  const auto run = [&]<class A, class T>() {
    forward<A>(launch, input<T>(image), numbers, shape, static_cast<T*>(result.mutable_data_ptr()));
  };
  if (!call_for_first<Types<float>, Types<BFloat16>, Types<Half>>(run, image))
    run.template operator()<double, double>();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("strong_view", TORCH_BOX(&forward_op<forward_cuda>));
}

}  // namespace ichfast
