// Runs CUDA kernels on the CPU, one thread per CUDA thread: the kernels' own source, under a
// compiler whose sanitizers see memory errors, undefined behaviour and races.
//
// Of CUDA there is only what the kernels keep to: vector loads and stores, shuffles down, shared
// memory and __syncthreads. Blocks run one after another; within a block the threads run freely,
// and meet at barriers alone, so that a missing one is a data race that ThreadSanitizer reports.
#pragma once

#include <barrier>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __shared__ static  // one block at a time

struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

struct Index {
  unsigned x;
};
inline thread_local Index threadIdx, blockIdx;
inline Index gridDim;

namespace host_sim {

inline constexpr int kMostWarps = 8;

using Barrier = std::barrier<>;
inline std::unique_ptr<Barrier> of_block, end_of_block;
inline std::vector<std::unique_ptr<Barrier>> of_warp;
// What lanes exchange. Shuffles take turns with the two buffers: who writes into one again has met
// all lanes since they read it.
inline uint64_t exchanged[2][kMostWarps][32];
inline thread_local unsigned turn;

template <class W>
void check_aligned(const void* at) {
  if (reinterpret_cast<uintptr_t>(at) % sizeof(W) == 0) return;
  std::printf("access of %zu bytes at %p is misaligned\n", sizeof(W), at);
  std::abort();
}

}  // namespace host_sim

inline void __syncthreads() {
#if !defined(HOST_SIM_WITHOUT_BARRIERS)  // the test of the test
  host_sim::of_block->arrive_and_wait();
#endif
}

template <class T>
T __shfl_down_sync(unsigned, T value, int lanes) {
  static_assert(sizeof(T) <= 8);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto& buffer = host_sim::exchanged[host_sim::turn++ % 2][warp];
  std::memcpy(&buffer[lane], &value, sizeof value);
  host_sim::of_warp[warp]->arrive_and_wait();
  if (lane + lanes < 32) std::memcpy(&value, &buffer[lane + lanes], sizeof value);
  return value;
}

namespace ichfast {

template <class W>
W load_word(const void* at) {
  host_sim::check_aligned<W>(at);
  W word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

template <class W>
void store_word(void* at, W word) {
  host_sim::check_aligned<W>(at);
  std::memcpy(at, &word, sizeof word);
}

// What cuda/*.cu launch with, simulated.
template <int kThreadsPerBlock>
struct SimulatedLaunch {
  static constexpr int kThreads = kThreadsPerBlock;

  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), int64_t blocks,
                  const Arguments&... arguments) const {
    using host_sim::Barrier;
    static_assert(kThreads % 32 == 0 && kThreads / 32 <= host_sim::kMostWarps);
    gridDim.x = unsigned(blocks);
    host_sim::of_block = std::make_unique<Barrier>(kThreads);
    host_sim::end_of_block = std::make_unique<Barrier>(kThreads);
    host_sim::of_warp.clear();
    for (int warp = 0; warp < kThreads / 32; ++warp)
      host_sim::of_warp.push_back(std::make_unique<Barrier>(32));
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        threadIdx.x = unsigned(thread);
        for (int64_t block = 0; block < blocks; ++block) {
          blockIdx.x = unsigned(block);
          kernel(arguments...);
          host_sim::end_of_block->arrive_and_wait();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

}  // namespace ichfast
