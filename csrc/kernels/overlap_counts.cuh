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
    count_chunks(Input<P> prediction, Input<T> target, A threshold, Cut cut, int64_t* slots) {
  constexpr int kWidth = kStepWidth<P, T>;
  constexpr bool kNaNTarget = !std::is_same_v<T, Bool> && !std::is_same_v<T, uint8_t>;
  static_assert(kWidth / 4 * kMostSteps <= 255, "a byte of a packed count holds no more");
  const Chunk<kWidth, kThreads> chunk(cut);
  const Row p(prediction, chunk.image, chunk.channel);
  const Row t(target, chunk.image, chunk.channel);
  int32_t counts[kCounts] = {};
  Packed packed;
  const Access access = common_access<kWidth>(chunk.first_vector(), p, t);
  chunk.template for_each_step<false, 16 / kWidth>(access, [&](auto step) {
    const auto ps = p.template get<A>(step);
    const auto ts = t.template get<A>(step);
    if constexpr (step.kWidth % 4 == 0) {
#pragma unroll
      for (int k = 0; k < step.kWidth; k += 4)
        packed.count<kNaNTarget>(ps.values + k, ts.values + k, threshold);
    } else {
      for (int k = 0; k < step.kWidth; ++k) count(ps[k], ts[k], threshold, counts);
    }
  });
  packed.add_to(counts);
  const int64_t* const total = block_sum<int64_t, kThreads>(counts);
  if (threadIdx.x < kCounts) slots[chunk.slot * kCounts + threadIdx.x] = total[threadIdx.x];
}

// Stage two, a block per (image, channel).
// 16-byte accesses: none, since it reads and writes counts.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    finish(const int64_t* slots, Groups groups, int64_t* result) {
  const int64_t row = blockIdx.x;
  const int64_t* const total = group_sum<kThreads, kCounts>(slots, blockIdx.x, groups);
  if (threadIdx.x < kNaN) result[row * kNaN + threadIdx.x] = total[kNaN] ? -1 : total[threadIdx.x];
}

// int64s that the first stage needs.
template <class P, class T, class Launch>
int64_t slots(int64_t rows, int64_t voxels) {
  return cut_rows<kStepWidth<P, T>, Launch>(rows, 1, voxels).blocks() * kCounts;
}

template <class A, class P, class T, class Launch>
void forward(const Launch& launch, Input<P> prediction, Input<T> target, double threshold,
             int64_t images, int64_t channels, int64_t voxels, int64_t* slots, int64_t* result) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<P, T>, Launch>(images, channels, voxels);
  launch(count_chunks<A, P, T, kThreads>, cut.blocks(), prediction, target, A(threshold), cut,
         slots);
  launch(finish<kThreads>, images * channels, static_cast<const int64_t*>(slots),
         Groups(cut, images * channels), result);
}

}  // namespace ichfast::overlap_counts
