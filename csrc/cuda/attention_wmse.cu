// Area-weighted attention MSE on the GPU. See kernels/attention_wmse.cuh.
#include "ops/attention_wmse.h"

#include "cuda/common/dispatch.h"
#include "kernels/attention_wmse.cuh"

namespace ichfast {
namespace {

using namespace attention_wmse;

template <class F>
void dispatch(const Arguments& arguments, const F& f) {
  const bool alike = arguments.reconstruction.scalar_type() == arguments.logits.scalar_type();
  dispatch_attention(arguments.image, arguments.logits, alike, arguments.in_double(), f);
}

void forward_cuda(const Arguments& arguments, Tensor& loss, Tensor& sums) {
  const Tensor& image = arguments.image;
  const CudaLaunch launch(image);
  const int64_t images = image.size(0), n = voxels(image);
  dispatch(arguments, [&]<class A, class X, class Z>() {
    Tensor partial = torch::stable::new_empty(image, {slots<X, Z, Z, CudaLaunch>(images, n)},
                                              ScalarType::Double);
    const auto run = [&]<bool kSigmoid>() {
      forward<kSigmoid>(launch, input<X>(image), input<Z>(arguments.logits),
                        input<Z>(arguments.reconstruction), images, n,
                        partial.mutable_data_ptr<double>(), sums.mutable_data_ptr<double>(),
                        loss.mutable_data_ptr<A>());
    };
    arguments.sigmoid_r ? run.template operator()<true>() : run.template operator()<false>();
  });
}

void backward_cuda(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
                   Tensor* grad_logits, Tensor& grad_reconstruction) {
  const Tensor& image = arguments.image;
  const CudaLaunch launch(image);
  const auto grads = input<Floating>(grad_loss, {grad_loss.stride(0), 0, 0});
  dispatch(arguments, [&]<class A, class X, class Z>() {
    const auto run = [&]<bool kSigmoid, bool kLogits>() {
      const auto z_out = kLogits ? output<Z>(*grad_logits) : Output<Z>{};
      backward<kSigmoid, kLogits, A>(launch, grads, input<X>(image), input<Z>(arguments.logits),
                                     input<Z>(arguments.reconstruction),
                                     sums.const_data_ptr<double>(), image.size(0), voxels(image),
                                     z_out, output<Z>(grad_reconstruction));
    };
    if (arguments.sigmoid_r)
      grad_logits ? run.template operator()<true, true>() : run.template operator()<true, false>();
    else
      grad_logits ? run.template operator()<false, true>()
                  : run.template operator()<false, false>();
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("attention_wmse", TORCH_BOX(&forward_op<forward_cuda>));
  m.impl("attention_wmse_backward", TORCH_BOX(&backward_op<backward_cuda>));
}

}  // namespace ichfast
