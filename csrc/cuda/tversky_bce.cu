// Tversky loss with cross-entropy on the GPU. See kernels/tversky_bce.cuh.
#include "ops/tversky_bce.h"

#include "cuda/common/dispatch.h"
#include "kernels/tversky_bce.cuh"

namespace ichfast {
namespace {

using namespace tversky_bce;

// Calls f.operator()<A>(inputs), the inputs as views; A computes. Bool masks have kernels of their
// own, and float ones beside float targets; any other mixture goes voxel by voxel.
template <class F>
void dispatch(const Arguments& arguments, const F& f) {
  const Tensor& logits = arguments.logits;
  const Tensor& target = arguments.target;
  Input<Floating> pos_weight{};
  if (arguments.pos_weight)
    pos_weight = input<Floating>(*arguments.pos_weight, {0, arguments.pos_weight->stride(0), 0});
  if (!arguments.mask) {
    dispatch_overlap(logits, target, [&]<class A, class P, class T>() {
      f.template operator()<A>(
          Inputs<P, T, One>{input<P>(logits), input<T>(target), {}, pos_weight});
    });
    return;
  }
  const Tensor& mask = *arguments.mask;
  const auto masked = [&]<class A, class P, class T, class M>() {
    f.template operator()<A>(
        Inputs<P, T, M>{input<P>(logits), input<T>(target), input<M>(mask), pos_weight});
  };
  if (mask.scalar_type() == ScalarType::Bool) {
    dispatch_overlap(logits, target, [&]<class A, class P, class T>() {
      constexpr bool kMixture = std::is_same_v<P, Floating>;
      masked.template operator()<A, P, T, std::conditional_t<kMixture, Target, Bool>>();
    });
  } else if (call_for_first<Types<float, float, float>, Types<BFloat16, float, float>,
                            Types<Half, float, float>>(masked, logits, target, mask)) {
    return;
  } else if (is_double(logits)) {
    masked.template operator()<double, Floating, Target, Target>();
  } else {
    masked.template operator()<float, Floating, Target, Target>();
  }
}

void forward_cuda(const Arguments& arguments, Results& results) {
  const Tensor& logits = arguments.logits;
  const CudaLaunch launch(logits);
  const int64_t images = logits.size(0), channels = logits.size(1), n = voxels(logits);
  dispatch(arguments, [&]<class A, class P, class T, class M>(const Inputs<P, T, M>& inputs) {
    Tensor partial =
        allocate(logits, {slots<P, T, M, CudaLaunch>(images * channels, n)}, ScalarType::Double);
    forward(launch, inputs, arguments.parameters, arguments.batch, images, channels, n,
            partial.mutable_data_ptr<double>(), results.sums.mutable_data_ptr<double>(),
            results.tversky.mutable_data_ptr<A>(), results.cross_entropy.mutable_data_ptr<A>(),
            results.count.mutable_data_ptr<A>());
  });
}

void backward_cuda(const Arguments& arguments, const Tensor& grad_tversky,
                   const Tensor& grad_cross_entropy, const Tensor& sums, Tensor& grad_logits) {
  const Tensor& logits = arguments.logits;
  const bool batch = arguments.batch;
  const CudaLaunch launch(logits);
  const auto view = [&](const Tensor& grad) {
    return input<Floating>(
        grad, batch ? Strides{0, grad.stride(0), 0} : Strides{grad.stride(0), grad.stride(1), 0});
  };
  dispatch(arguments, [&]<class A, class P, class T, class M>(const Inputs<P, T, M>& inputs) {
    backward<A>(launch, view(grad_tversky), view(grad_cross_entropy), inputs,
                sums.const_data_ptr<double>(), arguments.parameters, batch, logits.size(0),
                logits.size(1), voxels(logits), output<P>(grad_logits));
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("tversky_bce", TORCH_BOX(&forward_op<forward_cuda>));
  m.impl("tversky_bce_backward", TORCH_BOX(&backward_op<backward_cuda>));
}

}  // namespace ichfast
