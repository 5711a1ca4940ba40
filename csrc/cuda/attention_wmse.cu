// The attention-masked MSE on the GPU. See kernels/attention_wmse.cuh.
#include "ops/attention_wmse.h"

#include "cuda/common/dispatch.h"
#include "kernels/attention_wmse.cuh"

namespace ichfast {
namespace {

using namespace attention_wmse;

// Calls f with the form as template arguments.
template <class F>
void dispatch_form(Form form, const F& f) {
  if (form.balance == Balance::kPaper)
    form.sigmoid_r ? f.template operator()<Balance::kPaper, true>()
                   : f.template operator()<Balance::kPaper, false>();
  else
    form.sigmoid_r ? f.template operator()<Balance::kRegion, true>()
                   : f.template operator()<Balance::kRegion, false>();
}

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
    Tensor partial = allocate(image, {slots<X, Z, Z, CudaLaunch>(images, n)}, ScalarType::Double);
    dispatch_form(arguments.form, [&]<Balance kBalance, bool kSigmoid>() {
      forward<kBalance, kSigmoid>(launch, input<X>(image), input<Z>(arguments.logits),
                                  input<Z>(arguments.reconstruction), images, n,
                                  partial.mutable_data_ptr<double>(),
                                  sums.mutable_data_ptr<double>(), loss.mutable_data_ptr<A>());
    });
  });
}

void backward_cuda(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
                   Tensor* grad_logits, Tensor* grad_reconstruction) {
  const Tensor& image = arguments.image;
  const CudaLaunch launch(image);
  const auto grads = input<Floating>(grad_loss, {grad_loss.stride(0), 0, 0});
  dispatch(arguments, [&]<class A, class X, class Z>() {
    dispatch_form(arguments.form, [&]<Balance kBalance, bool kSigmoid>() {
      const auto run = [&]<bool kLogits, bool kReconstruction>() {
        backward<kBalance, kSigmoid, kLogits, kReconstruction, A>(
            launch, grads, input<X>(image), input<Z>(arguments.logits),
            input<Z>(arguments.reconstruction), sums.const_data_ptr<double>(), image.size(0),
            voxels(image), kLogits ? output<Z>(*grad_logits) : Output<Z>{},
            kReconstruction ? output<Z>(*grad_reconstruction) : Output<Z>{});
      };
      if (grad_logits && grad_reconstruction)
        run.template operator()<true, true>();
      else if (grad_logits)
        run.template operator()<true, false>();
      else if (grad_reconstruction)
        run.template operator()<false, true>();
    });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("attention_wmse", TORCH_BOX(&forward_op<forward_cuda>));
  m.impl("attention_wmse_backward", TORCH_BOX(&backward_op<backward_cuda>));
}

}  // namespace ichfast
