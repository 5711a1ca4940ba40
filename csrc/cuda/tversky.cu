// Tversky loss on the GPU. See kernels/tversky.cuh.
#include "ops/tversky.h"

#include "cuda/common/dispatch.h"
#include "kernels/tversky.cuh"

namespace ichfast {
namespace {

using namespace tversky;

void forward_cuda(const Arguments& arguments, Tensor& loss, Tensor& sums) {
  const Tensor& prediction = arguments.prediction;
  const Tensor& target = arguments.target;
  const CudaLaunch launch(prediction);
  const int64_t images = prediction.size(0), channels = prediction.size(1);
  const int64_t n = voxels(prediction);
  dispatch_overlap(prediction, target, [&]<class A, class P, class T>() {
    Tensor partial =
        allocate(prediction, {slots<P, T, CudaLaunch>(images * channels, n)}, ScalarType::Double);
    const auto run = [&]<bool kSigmoid>() {
      forward<kSigmoid>(launch, input<P>(prediction), input<T>(target), arguments.parameters,
                        arguments.batch, images, channels, n, partial.mutable_data_ptr<double>(),
                        sums.mutable_data_ptr<double>(), loss.mutable_data_ptr<A>());
    };
    arguments.sigmoid ? run.template operator()<true>() : run.template operator()<false>();
  });
}

void backward_cuda(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
                   Tensor& grad_prediction) {
  const Tensor& prediction = arguments.prediction;
  const Tensor& target = arguments.target;
  const bool batch = arguments.batch;
  const CudaLaunch launch(prediction);
  const auto grads =
      input<Floating>(grad_loss, batch ? Strides{0, grad_loss.stride(0), 0}
                                       : Strides{grad_loss.stride(0), grad_loss.stride(1), 0});
  dispatch_overlap(prediction, target, [&]<class A, class P, class T>() {
    const auto run = [&]<bool kSigmoid>() {
      backward<kSigmoid, A>(launch, grads, input<P>(prediction), input<T>(target),
                            sums.const_data_ptr<double>(), arguments.parameters, batch,
                            prediction.size(0), prediction.size(1), voxels(prediction),
                            output<P>(grad_prediction));
    };
    arguments.sigmoid ? run.template operator()<true>() : run.template operator()<false>();
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("tversky", TORCH_BOX(&forward_op<forward_cuda>));
  m.impl("tversky_backward", TORCH_BOX(&backward_op<backward_cuda>));
}

}  // namespace ichfast
