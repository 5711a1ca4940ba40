// Pasting on the GPU. See kernels/paste.cuh.
#include "ops/paste.h"

#include "cuda/common/dispatch.h"
#include "kernels/paste.cuh"

namespace ichfast {
namespace {

using namespace paste;

// Bytes of an element are all that matters where it is only moved.
int which_word(const Tensor& tensor) {
  const size_t bytes = tensor.element_size();
  return bytes == 1   ? kPosition<uint8_t, Word>
         : bytes == 2 ? kPosition<uint16_t, Word>
         : bytes == 4 ? kPosition<uint32_t, Word>
                      : kPosition<uint64_t, Word>;
}

Input<Word> words(const Tensor& tensor) {
  return {tensor.const_data_ptr(), *fold(tensor), which_word(tensor)};
}

// Feathers are read by the kernel: to look at them here would stall the stream. What the CPU
// refuses gives NaN.
void forward_cuda(const Arguments& in, Tensor& image_out, Tensor& target_out) {
  const CudaLaunch launch(image_out);
  const Shape shape{in.image.size(0), in.image.size(2), in.image.size(3)};
  Targets targets{};
  if (in.target)
    targets = {words(*in.target),
               words(*in.source_target),
               {target_out.mutable_data_ptr(), *fold(target_out), which_word(target_out)}};
  const auto run = [&]<class A, class T>() {
    forward<A>(
        launch, input<T>(in.image), input<T>(in.source),
        Input<uint8_t>{static_cast<const uint8_t*>(in.region.const_data_ptr()), *fold(in.region)},
        targets, input<Floating>(in.feather, {in.feather.stride(0), 0, 0}), in.low, in.high, shape,
        output<T>(image_out));
  };
  if (!call_for_first<Types<float>, Types<BFloat16>, Types<Half>>(run, in.image))
    run.operator()<double, double>();
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("paste", TORCH_BOX(&forward_op<forward_cuda>));
}

}  // namespace ichfast
