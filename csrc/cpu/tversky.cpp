// Tversky loss on the CPU. Forward leaves three sums per (image, channel), or per channel; backward
// is one pass with two scalars of each. See math/tversky.h for the derivation.
#include "math/tversky.h"

#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace tversky;

template <bool kSigmoid, class A>
ICHFAST_INLINE void sum_tile(const A* prediction, const A* target, int64_t n, A* sums) {
  A tp = 0, fp = 0, fn = 0;
#pragma omp simd reduction(+ : tp, fp, fn)
  for (int64_t i = 0; i < n; ++i) {
    const A p = kSigmoid ? sigmoid(prediction[i]) : prediction[i], t = target[i];
    tp += p * t;
    fp += p * (A(1) - t);
    fn += (A(1) - p) * t;
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
    out[i] = kSigmoid ? along * sigmoid_slope(sigmoid(prediction[i])) : along;
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
void forward(const Tensor& prediction, const Tensor& target, const Parameters<double>& p,
             bool sigmoid, Tensor& loss_out, Tensor& sums_out) {
  const Source<A> predictions(prediction), targets(target);
  const int64_t channels = prediction.size(1);
  const Chunks chunks{prediction.size(0) * channels, voxels(prediction)};
  Tensor partial = zeros(prediction, {chunks.count(), kSums});
  double* const sums_of = partial.mutable_data_ptr<double>();
  chunks.for_each_tile([&](int64_t row, int64_t first, int64_t n, int64_t chunk) {
    A buffer[2][kTile], tile_sums[kSums];
    sum(predictions.tile(row / channels, row % channels, first, n, buffer[0]),
        targets.tile(row / channels, row % channels, first, n, buffer[1]), sigmoid, n, tile_sums);
    for (int j = 0; j < kSums; ++j) sums_of[chunk * kSums + j] += tile_sums[j];
  });
  std::vector<double> per_row(chunks.rows * kSums);
  sum_chunks(chunks, sums_of, kSums, per_row.data());
  // The result has one row per (image, channel), or per channel when summed over the batch.
  double* const sums = sums_out.mutable_data_ptr<double>();
  const int64_t rows = loss_out.numel();
  std::fill(sums, sums + rows * kSums, 0.0);
  for (int64_t row = 0; row < chunks.rows; ++row)
    for (int j = 0; j < kSums; ++j) sums[row % rows * kSums + j] += per_row[row * kSums + j];
  A* const losses = loss_out.mutable_data_ptr<A>();
  for (int64_t row = 0; row < rows; ++row) losses[row] = A(loss(sums + row * kSums, p));
}

template <class A>
void backward(const Tensor& grad_loss, const Tensor& prediction, const Tensor& target,
              const Tensor& sums, const Parameters<double>& p, bool sigmoid, Tensor& grad_out) {
  const Source<A> predictions(prediction), targets(target);
  const Sink<A> sink(grad_out);
  const int64_t channels = prediction.size(1);
  const Chunks chunks{prediction.size(0) * channels, voxels(prediction)};
  const Tensor grads = torch::stable::contiguous(grad_loss);
  std::vector<Gradient<A>> gradients;
  for (int64_t row = 0; row < grads.numel(); ++row) {
    double buffer;
    const double g = *load(grads.scalar_type(), grads.const_data_ptr(), row, 1, 1, &buffer);
    const auto full = gradient(sums.const_data_ptr<double>() + row * kSums, p, g);
    gradients.push_back({A(full.constant), A(full.slope)});
  }
  chunks.for_each_tile([&](int64_t row, int64_t first, int64_t n, int64_t) {
    const int64_t b = row / channels, c = row % channels;
    A buffer[2][kTile], result[kTile];
    A* const out = sink.place(b, c, first, result);
    grad(predictions.tile(b, c, first, n, buffer[0]), targets.tile(b, c, first, n, buffer[1]),
         gradients[row % gradients.size()], sigmoid, n, out);
    sink.put(b, c, first, n, out);
  });
}

std::tuple<Tensor, Tensor> tversky_cpu(const Tensor& prediction_in, const Tensor& target_in,
                                       double alpha, double beta, double smooth_nr,
                                       double smooth_dr, bool sigmoid, bool batch) {
  check_same_shape("tversky", prediction_in, target_in);
  const Tensor prediction = foldable(prediction_in), target = foldable(target_in);
  const int64_t images = prediction.size(0), channels = prediction.size(1);
  const ScalarType dtype = is_double(prediction) ? ScalarType::Double : ScalarType::Float;
  Tensor loss = batch ? torch::stable::new_empty(prediction, {channels}, dtype)
                      : torch::stable::new_empty(prediction, {images, channels}, dtype);
  Tensor sums = torch::stable::new_empty(prediction, {loss.numel(), kSums}, ScalarType::Double);
  const Parameters<double> p{alpha, beta, smooth_nr, smooth_dr};
  (is_double(prediction) ? forward<double> : forward<float>)(prediction, target, p, sigmoid, loss,
                                                             sums);
  return {loss, sums};
}

Tensor tversky_backward_cpu(const Tensor& grad_loss, const Tensor& prediction_in,
                            const Tensor& target_in, const Tensor& sums, double alpha, double beta,
                            double smooth_nr, double smooth_dr, bool sigmoid, bool batch) {
  check_same_shape("tversky_backward", prediction_in, target_in);
  const Tensor prediction = foldable(prediction_in), target = foldable(target_in);
  const int64_t rows = batch ? prediction.size(1) : prediction.size(0) * prediction.size(1);
  check_saved("tversky_backward", grad_loss, sums, rows, kSums);
  Tensor result = empty_gradient(prediction);
  const Parameters<double> p{alpha, beta, smooth_nr, smooth_dr};
  (is_double(prediction) ? backward<double> : backward<float>)(grad_loss, prediction, target, sums,
                                                               p, sigmoid, result);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("tversky", TORCH_BOX(&tversky_cpu));
  m.impl("tversky_backward", TORCH_BOX(&tversky_backward_cpu));
}

}  // namespace ichfast
