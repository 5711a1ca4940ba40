// Tversky loss on the GPU. See kernels/tversky.cuh.
#include "cuda/common/cuda.h"
#include "cuda/common/dispatch.h"
#include "kernels/tversky.cuh"

namespace ichfast {
namespace {

using namespace tversky;

std::tuple<Tensor, Tensor> tversky_cuda(const Tensor& prediction_in, const Tensor& target_in,
                                        double alpha, double beta, double smooth_nr,
                                        double smooth_dr, bool sigmoid, bool batch) {
  check_same_shape("tversky", prediction_in, target_in);
  const CudaLaunch launch(prediction_in);
  const Tensor prediction = foldable(prediction_in), target = foldable(target_in);
  const int64_t images = prediction.size(0), channels = prediction.size(1);
  const int64_t n = voxels(prediction);
  const ScalarType dtype = is_double(prediction) ? ScalarType::Double : ScalarType::Float;
  Tensor loss = batch ? torch::stable::new_empty(prediction, {channels}, dtype)
                      : torch::stable::new_empty(prediction, {images, channels}, dtype);
  Tensor sums = torch::stable::new_empty(prediction, {loss.numel(), kSums}, ScalarType::Double);
  const Parameters<double> parameters{alpha, beta, smooth_nr, smooth_dr};
  dispatch_overlap(prediction, target, [&]<class A, class P, class T>() {
    Tensor partial = torch::stable::new_empty(
        prediction, {slots<P, T, CudaLaunch>(images * channels, n)}, ScalarType::Double);
    const auto run = [&]<bool kSigmoid>() {
      forward<kSigmoid>(launch, input<P>(prediction), input<T>(target), parameters, batch, images,
                        channels, n, partial.mutable_data_ptr<double>(),
                        sums.mutable_data_ptr<double>(), loss.mutable_data_ptr<A>());
    };
    sigmoid ? run.template operator()<true>() : run.template operator()<false>();
  });
  return {loss, sums};
}

Tensor tversky_backward_cuda(const Tensor& grad_loss, const Tensor& prediction_in,
                             const Tensor& target_in, const Tensor& sums, double alpha, double beta,
                             double smooth_nr, double smooth_dr, bool sigmoid, bool batch) {
  check_same_shape("tversky_backward", prediction_in, target_in);
  const CudaLaunch launch(prediction_in);
  const Tensor prediction = foldable(prediction_in), target = foldable(target_in);
  const int64_t images = prediction.size(0), channels = prediction.size(1);
  check_saved("tversky_backward", grad_loss, sums, batch ? channels : images * channels, kSums);
  Tensor result = empty_gradient(prediction);
  const Parameters<double> parameters{alpha, beta, smooth_nr, smooth_dr};
  const auto grads =
      input<Floating>(grad_loss, batch ? Strides{0, grad_loss.stride(0), 0}
                                       : Strides{grad_loss.stride(0), grad_loss.stride(1), 0});
  dispatch_overlap(prediction, target, [&]<class A, class P, class T>() {
    const auto run = [&]<bool kSigmoid>() {
      backward<kSigmoid, A>(launch, grads, input<P>(prediction), input<T>(target),
                            sums.const_data_ptr<double>(), parameters, batch, images, channels,
                            voxels(prediction), output<P>(result));
    };
    sigmoid ? run.template operator()<true>() : run.template operator()<false>();
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("tversky", TORCH_BOX(&tversky_cuda));
  m.impl("tversky_backward", TORCH_BOX(&tversky_backward_cuda));
}

}  // namespace ichfast
