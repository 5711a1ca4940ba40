// TP, FP and FN on the CPU, in one pass. See math/overlap_counts.h.
#include "math/overlap_counts.h"

#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace overlap_counts;

template <class A>
ICHFAST_INLINE void count_tile(const A* prediction, const A* target, A threshold, int64_t n,
                               int64_t* counts) {
  int32_t tp = 0, fp = 0, fn = 0, nan = 0;
#pragma omp simd reduction(+ : tp, fp, fn, nan)
  for (int64_t i = 0; i < n; ++i) {
    int32_t voxel[kCounts] = {};
    count(prediction[i], target[i], threshold, voxel);
    tp += voxel[kTP];
    fp += voxel[kFP];
    fn += voxel[kFN];
    nan += voxel[kNaN];
  }
  counts[kTP] += tp;
  counts[kFP] += fp;
  counts[kFN] += fn;
  counts[kNaN] += nan;
}

ICHFAST_SIMD void count_all(const float* prediction, const float* target, float threshold,
                            int64_t n, int64_t* counts) {
  count_tile(prediction, target, threshold, n, counts);
}

void count_all(const double* prediction, const double* target, double threshold, int64_t n,
               int64_t* counts) {
  count_tile(prediction, target, threshold, n, counts);
}

template <class A>
void forward(const Tensor& prediction, const Tensor& target, double threshold, int64_t* result) {
  const Source<A> predictions(prediction), targets(target);
  const int64_t channels = prediction.size(1);
  const Chunks chunks{prediction.size(0) * channels, voxels(prediction)};
  std::vector<int64_t> partial(chunks.count() * kCounts);
  chunks.for_each_tile([&](int64_t row, int64_t first, int64_t n, int64_t chunk) {
    const int64_t b = row / channels, c = row % channels;
    A buffer[2][kTile];
    count_all(predictions.tile(b, c, first, n, buffer[0]), targets.tile(b, c, first, n, buffer[1]),
              A(threshold), n, &partial[chunk * kCounts]);
  });
  for (int64_t row = 0; row < chunks.rows; ++row) {
    int64_t total[kCounts] = {};
    for (int64_t chunk = row * chunks.per_row(); chunk < (row + 1) * chunks.per_row(); ++chunk)
      for (int j = 0; j < kCounts; ++j) total[j] += partial[chunk * kCounts + j];
    // An integer cannot be NaN; −1 is the count that cannot be mistaken for one.
    for (int j = 0; j < kNaN; ++j) result[row * kNaN + j] = total[kNaN] ? -1 : total[j];
  }
}

Tensor overlap_counts_cpu(const Tensor& prediction_in, const Tensor& target_in, double threshold) {
  check_same_shape("overlap_counts", prediction_in, target_in);
  const Tensor prediction = foldable(prediction_in), target = foldable(target_in);
  Tensor result = torch::stable::new_empty(prediction, {prediction.size(0), prediction.size(1), 3},
                                           ScalarType::Long);
  (is_double(prediction) ? forward<double> : forward<float>)(prediction, target, threshold,
                                                             result.mutable_data_ptr<int64_t>());
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("overlap_counts", TORCH_BOX(&overlap_counts_cpu));
}

}  // namespace ichfast
