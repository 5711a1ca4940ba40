// Sums over the threads of a block, in a fixed order.
#pragma once

#include "kernels/common/chunks.h"

namespace ichfast {

// The sum of each of the K numbers over all threads, to every thread: within a warp in the type of
// the numbers, across warps in Wide. All threads of the block must call it, at most once a kernel
// (it has one buffer).
template <class Wide, int kThreads, int K, class A>
ICHFAST_DEVICE const Wide* block_sum(A (&mine)[K]) {
  constexpr int kWarps = kThreads / 32;
  static_assert(kThreads % 32 == 0 && K <= 32);
  __shared__ Wide of_warp[kWarps][K], total[K];
#pragma unroll
  for (int j = 0; j < K; ++j) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2)
      mine[j] += __shfl_down_sync(0xffffffffu, mine[j], lanes);
  }
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int j = 0; j < K; ++j) of_warp[threadIdx.x / 32][j] = Wide(mine[j]);
  }
  __syncthreads();
  if (threadIdx.x < K) {
    Wide sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += of_warp[warp][threadIdx.x];
    total[threadIdx.x] = sum;
  }
  __syncthreads();
  return total;
}

// Rows whose sums go together: row r belongs to group r % groups.
struct Groups {
  uint32_t groups, slots;  // slots of a group
  Divisor chunks;          // of a row

  Groups(const Cut& cut, int64_t of)
      : groups(uint32_t(of)), slots(of ? uint32_t(cut.blocks() / of) : 0), chunks(cut.per_row) {}
};

// The same over the slots of a group: slot (row, chunk) lies at (row·chunks + chunk)·K. Threads
// take them in turn, with the loads of several in flight.
template <int kThreads, int K, class Wide>
ICHFAST_DEVICE const Wide* group_sum(const Wide* slots, uint32_t group, const Groups& groups) {
  constexpr int kAtOnce = 8;
  const uint32_t chunks = groups.chunks.divisor();
  Wide mine[K] = {};
  for (uint32_t first = threadIdx.x; first < groups.slots; first += kAtOnce * kThreads) {
    Wide loaded[kAtOnce][K];
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      const uint32_t i = first + s * kThreads, row = groups.chunks.divide(i);
      const int64_t slot = (int64_t(row) * groups.groups + group) * chunks + (i - row * chunks);
#pragma unroll
      for (int j = 0; j < K; ++j) loaded[s][j] = i < groups.slots ? slots[slot * K + j] : Wide(0);
    }
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
#pragma unroll
      for (int j = 0; j < K; ++j) mine[j] += loaded[s][j];
    }
  }
  return block_sum<Wide, kThreads>(mine);
}

}  // namespace ichfast
