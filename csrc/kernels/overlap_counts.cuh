// TP, FP and FN in one pass. See math/overlap_counts.h.
#pragma once

#include "kernels/common/chunks.h"
#include "kernels/common/reduce.h"
#include "math/overlap_counts.h"

namespace ichfast::overlap_counts {

// Stage one: the counts of each chunk, which int32 can hold.
// 16-byte accesses: loads, since a block writes no more than its counts.
template <class A, class P, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    count_chunks(Input<P> prediction, Input<T> target, A threshold, int64_t channels,
                 int64_t voxels, int64_t* slots) {
  constexpr int kWidth = kStepWidth<P, T>;
  const Chunk<kWidth, kThreads> chunk(channels, voxels);
  const Row p(prediction, chunk.image, chunk.channel);
  const Row t(target, chunk.image, chunk.channel);
  int32_t counts[kCounts] = {};
  const Access access = common_access<kWidth>(chunk.first_vector(), p, t);
  chunk.template for_each_step<false, 16 / kWidth>(access, [&](auto step) {
    const auto ps = p.template get<A>(step);
    const auto ts = t.template get<A>(step);
#pragma unroll
    for (int k = 0; k < step.kWidth; ++k) count(ps[k], ts[k], threshold, counts);
  });
  const int64_t* const total = block_sum<int64_t, kThreads>(counts);
  if (threadIdx.x < kCounts) slots[chunk.slot * kCounts + threadIdx.x] = total[threadIdx.x];
}

// Stage two, a block per (image, channel).
// 16-byte accesses: none, since it reads and writes counts.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    finish(const int64_t* slots, int64_t chunks, int64_t* result) {
  const int64_t row = blockIdx.x;
  const int64_t* const total =
      group_sum<kThreads, kCounts>(slots, row, gridDim.x, gridDim.x, chunks);
  if (threadIdx.x < kNaN) result[row * kNaN + threadIdx.x] = total[kNaN] ? -1 : total[threadIdx.x];
}

// int64s that the first stage needs.
template <class P, class T, class Launch>
int64_t slots(int64_t rows, int64_t voxels) {
  return rows * Chunking<kStepWidth<P, T>, Launch::kThreads>::per_row(voxels) * kCounts;
}

template <class A, class P, class T, class Launch>
void forward(const Launch& launch, Input<P> prediction, Input<T> target, double threshold,
             int64_t images, int64_t channels, int64_t voxels, int64_t* slots, int64_t* result) {
  constexpr int kThreads = Launch::kThreads;
  const int64_t chunks = Chunking<kStepWidth<P, T>, kThreads>::per_row(voxels);
  launch(count_chunks<A, P, T, kThreads>, images * channels * chunks, prediction, target,
         A(threshold), channels, voxels, slots);
  launch(finish<kThreads>, images * channels, static_cast<const int64_t*>(slots), chunks, result);
}

}  // namespace ichfast::overlap_counts
