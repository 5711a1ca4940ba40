// The masked images on the GPU. See kernels/attention_mask.cuh.
#include "cuda/common/dispatch.h"
#include "kernels/attention_mask.cuh"

namespace ichfast {
namespace {

using namespace attention_mask;

Tensor attention_mask_cuda(const Tensor& image_in, const Tensor& logits_in) {
  check_image_and_logits("attention_mask", image_in, logits_in);
  const CudaLaunch launch(image_in);
  const Tensor image = foldable(image_in), logits = foldable(logits_in);
  std::vector<int64_t> size(image.sizes().begin(), image.sizes().end());
  size[1] = 2;
  Tensor result = torch::stable::new_empty(image, size);
  const bool any_double = is_double(image) || is_double(logits);
  dispatch_attention(image, logits, true, any_double, [&]<class A, class X, class Z>() {
    forward<A>(launch, input<X>(image), input<Z>(logits), image.size(0), voxels(image),
               output<X>(result));
  });
  return result;
}

std::tuple<Tensor, Tensor> attention_mask_backward_cuda(const Tensor& grad_in,
                                                        const Tensor& image_in,
                                                        const Tensor& logits_in,
                                                        bool image_gradient, bool logits_gradient) {
  check_image_and_logits("attention_mask_backward", image_in, logits_in);
  check_pair("attention_mask_backward", "grad", grad_in, image_in);
  const CudaLaunch launch(image_in);
  const Tensor grad = foldable(grad_in), image = foldable(image_in), logits = foldable(logits_in);
  Tensor image_out = image_gradient ? empty_gradient(image) : torch::stable::new_empty(image, {0});
  Tensor logits_out =
      logits_gradient ? empty_gradient(logits) : torch::stable::new_empty(logits, {0});
  const bool alike = grad.scalar_type() == image.scalar_type();
  const bool any_double = is_double(image) || is_double(logits);
  dispatch_attention(image, logits, alike, any_double, [&]<class A, class X, class Z>() {
    const auto run = [&]<bool kImage, bool kLogits>() {
      const auto x_out = kImage ? output<X>(image_out) : output<X>(image_out, {});
      const auto z_out = kLogits ? output<Z>(logits_out) : output<Z>(logits_out, {});
      backward<A, kImage, kLogits>(launch, input<X>(grad), input<X>(image), input<Z>(logits),
                                   image.size(0), voxels(image), x_out, z_out);
    };
    if (image_gradient && logits_gradient)
      run.template operator()<true, true>();
    else if (image_gradient)
      run.template operator()<true, false>();
    else if (logits_gradient)
      run.template operator()<false, true>();
  });
  return {image_out, logits_out};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("attention_mask", TORCH_BOX(&attention_mask_cuda));
  m.impl("attention_mask_backward", TORCH_BOX(&attention_mask_backward_cuda));
}

}  // namespace ichfast
