// TP, FP and FN on the CPU, in one pass. See math/overlap_counts.h.
#include "ops/overlap_counts.h"

#include <array>
#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace overlap_counts;

template <class A>
ICHFAST_INLINE void count_tile(const A* prediction, const A* target, A threshold, int64_t n,
                               int32_t* counts) {
  int32_t tp = 0, fp = 0, fn = 0, nan = 0;  // an array would keep the loop scalar
#pragma omp simd reduction(+ : tp, fp, fn, nan)
  for (int64_t i = 0; i < n; ++i) {
    const Voxel v = voxel(prediction[i], target[i], threshold);
    tp += v.tp;
    fp += v.fp;
    fn += v.fn;
    nan += v.nan;
  }
  counts[kTP] = tp;
  counts[kFP] = fp;
  counts[kFN] = fn;
  counts[kNaN] = nan;
}

ICHFAST_SIMD void count_all(const float* prediction, const float* target, float threshold,
                            int64_t n, int32_t* counts) {
  count_tile(prediction, target, threshold, n, counts);
}

void count_all(const double* prediction, const double* target, double threshold, int64_t n,
               int32_t* counts) {
  count_tile(prediction, target, threshold, n, counts);
}

template <class A>
void forward(const Arguments& arguments, Tensor& counts_out) {
  const Source<A> prediction(arguments.prediction), target(arguments.target);
  const Chunks chunks(arguments.prediction);
  std::vector<int64_t> totals(chunks.rows() * kCounts);
  sum_rows(chunks, chunks.rows(), totals.data(), [&](const Tile& tile) {
    A buffer[2][kTile];
    std::array<int32_t, kCounts> result;
    count_all(prediction.read(tile, buffer[0]), target.read(tile, buffer[1]),
              A(arguments.threshold), tile.n, result.data());
    return result;
  });
  int64_t* const out = counts_out.mutable_data_ptr<int64_t>();
  for (int64_t row = 0; row < chunks.rows(); ++row) {
    const int64_t* const total = &totals[row * kCounts];
    // An integer cannot be NaN; −1 is the count that cannot be mistaken for one.
    for (int j = 0; j < kNaN; ++j) out[row * kNaN + j] = total[kNaN] ? -1 : total[j];
  }
}

void forward_cpu(const Arguments& arguments, Tensor& counts) {
  (is_double(arguments.prediction) ? forward<double> : forward<float>)(arguments, counts);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("overlap_counts", TORCH_BOX(&forward_op<forward_cpu>));
}

}  // namespace ichfast
