// Area-weighted attention MSE on the GPU. See kernels/attention_wmse.cuh.
#include "cuda/common/dispatch.h"
#include "kernels/attention_wmse.cuh"

namespace ichfast {
namespace {

using namespace attention_wmse;

template <class F>
void dispatch(const Tensor& image, const Tensor& logits, const Tensor& reconstruction, const F& f) {
  dispatch_attention(image, logits, reconstruction.scalar_type() == logits.scalar_type(),
                     is_double(image) || is_double(logits) || is_double(reconstruction), f);
}

std::tuple<Tensor, Tensor> attention_wmse_cuda(const Tensor& image_in, const Tensor& logits_in,
                                               const Tensor& reconstruction_in, bool sigmoid_r) {
  check_image_and_logits("attention_wmse", image_in, logits_in);
  check_pair("attention_wmse", "reconstruction", reconstruction_in, image_in);
  const CudaLaunch launch(image_in);
  const Tensor image = foldable(image_in), logits = foldable(logits_in),
               reconstruction = foldable(reconstruction_in);
  const int64_t images = image.size(0), n = voxels(image);
  Tensor sums = torch::stable::new_empty(image, {images, kSums}, ScalarType::Double);
  Tensor loss;
  dispatch(image, logits, reconstruction, [&]<class A, class X, class Z>() {
    loss = torch::stable::new_empty(image, {images}, kScalarType<A>);
    Tensor partial = torch::stable::new_empty(image, {slots<X, Z, Z, CudaLaunch>(images, n)},
                                              ScalarType::Double);
    const auto run = [&]<bool kSigmoid>() {
      forward<kSigmoid>(launch, input<X>(image), input<Z>(logits), input<Z>(reconstruction), images,
                        n, partial.mutable_data_ptr<double>(), sums.mutable_data_ptr<double>(),
                        loss.mutable_data_ptr<A>());
    };
    sigmoid_r ? run.template operator()<true>() : run.template operator()<false>();
  });
  return {loss, sums};
}

std::tuple<Tensor, Tensor> attention_wmse_backward_cuda(
    const Tensor& grad_loss, const Tensor& image_in, const Tensor& logits_in,
    const Tensor& reconstruction_in, const Tensor& sums, bool sigmoid_r, bool logits_gradient) {
  check_image_and_logits("attention_wmse_backward", image_in, logits_in);
  check_pair("attention_wmse_backward", "reconstruction", reconstruction_in, image_in);
  check_saved("attention_wmse_backward", grad_loss, sums, image_in.size(0), kSums);
  const CudaLaunch launch(image_in);
  const Tensor image = foldable(image_in), logits = foldable(logits_in),
               reconstruction = foldable(reconstruction_in);
  const int64_t images = image.size(0), n = voxels(image);
  Tensor grad_logits =
      logits_gradient ? empty_gradient(logits) : torch::stable::new_empty(logits, {0});
  Tensor grad_reconstruction = empty_gradient(reconstruction);
  const auto grads = input<Floating>(grad_loss, {grad_loss.stride(0), 0, 0});
  const double* const saved = sums.const_data_ptr<double>();
  dispatch(image, logits, reconstruction, [&]<class A, class X, class Z>() {
    const auto run = [&]<bool kSigmoid, bool kLogits>() {
      const auto z_out = kLogits ? output<Z>(grad_logits) : output<Z>(grad_logits, {});
      backward<kSigmoid, kLogits, A>(launch, grads, input<X>(image), input<Z>(logits),
                                     input<Z>(reconstruction), saved, images, n, z_out,
                                     output<Z>(grad_reconstruction));
    };
    if (sigmoid_r)
      logits_gradient ? run.template operator()<true, true>()
                      : run.template operator()<true, false>();
    else
      logits_gradient ? run.template operator()<false, true>()
                      : run.template operator()<false, false>();
  });
  return {grad_logits, grad_reconstruction};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("attention_wmse", TORCH_BOX(&attention_wmse_cuda));
  m.impl("attention_wmse_backward", TORCH_BOX(&attention_wmse_backward_cuda));
}

}  // namespace ichfast
