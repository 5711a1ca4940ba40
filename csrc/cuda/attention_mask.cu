// The masked images on the GPU. See kernels/attention_mask.cuh.
#include "ops/attention_mask.h"

#include "cuda/common/dispatch.h"
#include "kernels/attention_mask.cuh"

namespace ichfast {
namespace {

using namespace attention_mask;

void forward_cuda(const Arguments& arguments, Tensor& masked) {
  const Tensor& image = arguments.image;
  const Tensor& logits = arguments.logits;
  const CudaLaunch launch(image);
  dispatch_attention(image, logits, true, arguments.in_double(), [&]<class A, class X, class Z>() {
    forward<A>(launch, input<X>(image), input<Z>(logits), image.size(0), voxels(image),
               output<X>(masked));
  });
}

void backward_cuda(const Arguments& arguments, const Tensor& grad, Tensor* grad_image,
                   Tensor* grad_logits) {
  const CudaLaunch launch(arguments.image);
  const auto run = [&]<class A, class X, class Z, bool kImage, bool kLogits>() {
    const auto x_out = kImage ? output<X>(*grad_image) : Output<X>{};
    const auto z_out = kLogits ? output<Z>(*grad_logits) : Output<Z>{};
    const auto with = [&](const auto& grads) {
      backward<A, kImage, kLogits>(launch, grads, input<X>(arguments.image),
                                   input<Z>(arguments.logits), arguments.image.size(0),
                                   voxels(arguments.image), x_out, z_out);
    };
    if constexpr (!std::is_same_v<X, Floating>) {
      const Strides strides = *fold(grad);
      if (strides.voxel == 0)
        return with(Input<Repeated<X>>{static_cast<const X*>(grad.const_data_ptr()), strides});
    }
    with(input<X>(grad));
  };
  const bool alike = grad.scalar_type() == arguments.image.scalar_type();
  dispatch_attention(arguments.image, arguments.logits, alike, arguments.in_double(),
                     [&]<class A, class X, class Z>() {
                       if (grad_image && grad_logits)
                         run.template operator()<A, X, Z, true, true>();
                       else if (grad_image)
                         run.template operator()<A, X, Z, true, false>();
                       else if (grad_logits)
                         run.template operator()<A, X, Z, false, true>();
                     });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("attention_mask", TORCH_BOX(&forward_op<forward_cuda>));
  m.impl("attention_mask_backward", TORCH_BOX(&backward_op<backward_cuda>));
}

}  // namespace ichfast
