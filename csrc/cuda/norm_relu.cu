// Batch normalisation with ReLU and 2×2 max-pooling on the GPU. See kernels/norm_relu.cuh.
#include "ops/norm_relu.h"

#include "cuda/common/dispatch.h"
#include "kernels/norm_relu.cuh"

namespace ichfast {
namespace {

using namespace norm_relu;

// All tensors of a call have one dtype. Calls f.operator()<A, T>(); A computes.
template <class F>
void dispatch(const Tensor& input, const F& f) {
  if (call_for_first<Types<float>, Types<BFloat16>, Types<Half>>(f, input)) return;
  f.template operator()<double, double>();
}

template <class T>
Pixels<const T> pixels(const Tensor& tensor) {
  return {static_cast<const T*>(tensor.const_data_ptr()), *find_pixel_stride(tensor)};
}

// From this channel on.
template <class T>
Pixels<T> pixels(Tensor& tensor, int64_t channel = 0) {
  return {static_cast<T*>(tensor.mutable_data_ptr()) + channel, tensor.size(1)};
}

Shape shape_of(const Tensor& tensor) {
  return {tensor.size(1), count_pixels(tensor), tensor.size(3)};
}

template <class A>
Parameters<A> parameters_of(const Arguments& arguments) {
  return {arguments.weight.const_data_ptr<A>(), arguments.bias.const_data_ptr<A>(),
          arguments.mean.const_data_ptr<A>(), arguments.variance.const_data_ptr<A>(),
          A(arguments.eps)};
}

template <class T>
GradientViews<T> views_of(const Gradients& gradients) {
  GradientViews<T> views = {};
  if (gradients.output) views.output = pixels<T>(*gradients.output);
  if (gradients.pooled) views.pooled = pixels<T>(*gradients.pooled);
  return views;
}

// Room for the first stage's sums.
template <class T>
Tensor empty_slots(const Tensor& input, bool pooled) {
  return allocate(input, {slots<T, CudaLaunch>(shape_of(input), pooled)}, ScalarType::Double);
}

void moments_cuda(const Tensor& input, Tensor& mean, Tensor& variance) {
  const CudaLaunch launch(input);
  dispatch(input, [&]<class A, class T>() {
    Tensor partial = empty_slots<T>(input, false);
    moments<A, T>(launch, pixels<T>(input), shape_of(input), partial.mutable_data_ptr<double>(),
                  mean.mutable_data_ptr<A>(), variance.mutable_data_ptr<A>());
  });
}

void forward_cuda(const Arguments& arguments, const Tensor* beside, Tensor& output,
                  Tensor* pooled) {
  const Tensor& input = arguments.input;
  const CudaLaunch launch(input);
  const Shape shape = shape_of(input);
  dispatch(input, [&]<class A, class T>() {
    const Parameters<A> parameters = parameters_of<A>(arguments);
    if (pooled)
      return forward_pool<A, T>(launch, pixels<T>(input), shape, parameters, pixels<T>(output),
                                pixels<T>(*pooled));
    if (beside) copy<T>(launch, pixels<T>(*beside), shape_of(*beside), pixels<T>(output));
    const Pixels<T> own = pixels<T>(output, beside ? beside->size(1) : 0);
    arguments.relu ? forward<true, A, T>(launch, pixels<T>(input), shape, parameters, own)
                   : forward<false, A, T>(launch, pixels<T>(input), shape, parameters, own);
  });
}

void sums_cuda(const Arguments& arguments, const Gradients& gradients, Tensor& results) {
  const Tensor& input = arguments.input;
  const CudaLaunch launch(input);
  dispatch(input, [&]<class A, class T>() {
    Tensor partial = empty_slots<T>(input, gradients.pooled.has_value());
    const auto run = [&]<bool kRelu>() {
      sums<kRelu, A, T>(launch, views_of<T>(gradients), pixels<T>(input), shape_of(input),
                        parameters_of<A>(arguments), partial.mutable_data_ptr<double>(),
                        results.mutable_data_ptr<double>());
    };
    arguments.relu ? run.template operator()<true>() : run.template operator()<false>();
  });
}

void backward_cuda(const Arguments& arguments, const Gradients& gradients, const Tensor* given,
                   Tensor& grad_input) {
  const Tensor& input = arguments.input;
  const CudaLaunch launch(input);
  dispatch(input, [&]<class A, class T>() {
    const auto run = [&]<bool kRelu, bool kBatch>() {
      backward<kRelu, kBatch, A, T>(launch, views_of<T>(gradients), pixels<T>(input),
                                    shape_of(input), parameters_of<A>(arguments),
                                    given ? given->const_data_ptr<double>() : nullptr,
                                    pixels<T>(grad_input));
    };
    if (given)
      arguments.relu ? run.template operator()<true, true>()
                     : run.template operator()<false, true>();
    else
      arguments.relu ? run.template operator()<true, false>()
                     : run.template operator()<false, false>();
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("norm_relu_moments", TORCH_BOX(&moments_op<moments_cuda>));
  m.impl("norm_relu", TORCH_BOX(&forward_op<forward_cuda>));
  m.impl("norm_relu_sums_backward", TORCH_BOX(&sums_op<sums_cuda>));
  m.impl("norm_relu_backward", TORCH_BOX(&backward_op<backward_cuda>));
}

}  // namespace ichfast
