// Tversky loss on the CPU. Forward leaves three sums per (image, channel), or per channel; backward
// is one pass with two scalars of each. See math/tversky.h for the derivation.
#include "ops/tversky.h"

#include <array>
#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace tversky;

template <bool kSigmoid, class A>
ICHFAST_INLINE void sum_tile(const A* predictions, const A* target, int64_t n, A* sums) {
  A tp = 0, fp = 0, fn = 0;
#pragma omp simd reduction(+ : tp, fp, fn)
  for (int64_t i = 0; i < n; ++i) {
    const Sigmoid<A> p = probability<kSigmoid>(predictions[i]);
    const A t = target[i];
    tp += p.value * t;
    fp += p.value * (A(1) - t);
    fn += p.complement * t;
  }
  sums[kTP] = tp;
  sums[kFP] = fp;
  sums[kFN] = fn;
}

ICHFAST_SIMD void sum(const float* prediction, const float* target, bool sigmoid, int64_t n,
                      float* sums) {
  sigmoid ? sum_tile<true>(prediction, target, n, sums)
          : sum_tile<false>(prediction, target, n, sums);
}

void sum(const double* prediction, const double* target, bool sigmoid, int64_t n, double* sums) {
  sigmoid ? sum_tile<true>(prediction, target, n, sums)
          : sum_tile<false>(prediction, target, n, sums);
}

template <bool kSigmoid, class A>
ICHFAST_INLINE void grad_tile(const A* prediction, const A* target, const Gradient<A> g, int64_t n,
                              A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A along = g.constant + g.slope * target[i];
    out[i] = kSigmoid ? along * whole_sigmoid(prediction[i]).slope : along;
  }
}

ICHFAST_SIMD void grad(const float* prediction, const float* target, const Gradient<float>& g,
                       bool sigmoid, int64_t n, float* out) {
  sigmoid ? grad_tile<true>(prediction, target, g, n, out)
          : grad_tile<false>(prediction, target, g, n, out);
}

void grad(const double* prediction, const double* target, const Gradient<double>& g, bool sigmoid,
          int64_t n, double* out) {
  sigmoid ? grad_tile<true>(prediction, target, g, n, out)
          : grad_tile<false>(prediction, target, g, n, out);
}

template <class A>
void forward(const Arguments& arguments, Tensor& loss_out, Tensor& sums_out) {
  const Source<A> prediction(arguments.prediction), target(arguments.target);
  const int64_t losses = arguments.losses();
  double* const sums = sums_out.mutable_data_ptr<double>();
  sum_rows(Chunks(arguments.prediction), losses, sums, [&](const Tile& tile) {
    A buffer[2][kTile];
    std::array<A, kSums> result;
    sum(prediction.read(tile, buffer[0]), target.read(tile, buffer[1]), arguments.sigmoid, tile.n,
        result.data());
    return result;
  });
  A* const out = loss_out.mutable_data_ptr<A>();
  for (int64_t i = 0; i < losses; ++i) out[i] = A(loss(sums + i * kSums, arguments.parameters));
}

template <class A>
void backward(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
              Tensor& grad_prediction) {
  const Source<A> prediction(arguments.prediction), target(arguments.target);
  const Sink<A> sink(grad_prediction);
  const std::vector<double> grads = read_numbers(grad_loss);
  std::vector<Gradient<A>> gradients;
  for (int64_t i = 0; i < arguments.losses(); ++i) {
    const auto g =
        gradient(sums.const_data_ptr<double>() + i * kSums, arguments.parameters, grads[i]);
    gradients.push_back({A(g.constant), A(g.slope)});
  }
  Chunks(arguments.prediction).for_each_tile([&](const Tile& tile) {
    A buffer[2][kTile], result[kTile];
    A* const out = sink.place(tile, result);
    grad(prediction.read(tile, buffer[0]), target.read(tile, buffer[1]),
         gradients[tile.row % gradients.size()], arguments.sigmoid, tile.n, out);
    sink.put(tile, out);
  });
}

void forward_cpu(const Arguments& arguments, Tensor& loss, Tensor& sums) {
  (is_double(arguments.prediction) ? forward<double> : forward<float>)(arguments, loss, sums);
}

void backward_cpu(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
                  Tensor& grad_prediction) {
  (is_double(arguments.prediction) ? backward<double> : backward<float>)(arguments, grad_loss, sums,
                                                                         grad_prediction);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("tversky", TORCH_BOX(&forward_op<forward_cpu>));
  m.impl("tversky_backward", TORCH_BOX(&backward_op<backward_cpu>));
}

}  // namespace ichfast
