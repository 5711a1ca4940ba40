// Sums over the threads of a block, in a fixed order.
#pragma once

#include "math/host_device.h"

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

// The same over the slots of a group of rows: slot (row, chunk) lies at (row·chunks + chunk)·K, and
// row belongs to group row % groups. Threads take the slots in turn.
template <int kThreads, int K, class Wide>
ICHFAST_DEVICE const Wide* group_sum(const Wide* slots, int64_t group, int64_t groups, int64_t rows,
                                     int64_t chunks) {
  Wide mine[K] = {};
  const int64_t count = rows / groups * chunks;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const int64_t row = i / chunks * groups + group;
#pragma unroll
    for (int j = 0; j < K; ++j) mine[j] += slots[(row * chunks + i % chunks) * K + j];
  }
  return block_sum<Wide, kThreads>(mine);
}

}  // namespace ichfast
