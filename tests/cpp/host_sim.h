// Runs CUDA kernels on the CPU, one thread per CUDA thread: the kernels' own source, under a
// compiler whose sanitizers see memory errors and undefined behaviour.
//
// Of CUDA there is only what the kernels keep to: vector loads and stores, shuffles down, shared
// memory and __syncthreads. Blocks run one after another; within a block the threads run freely and
// meet at barriers alone. Races are looked for in the compiled kernels (tests/cpp/ptx).
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
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

// Of a block. Two warps, so that sums cross warps, and no more: each is 32 threads of two cores or
// so.
inline constexpr unsigned kThreads = 64;

// What a lane hands down. The lane that reads it waits for it and for nothing else: shuffles order
// no other access, on a GPU as little. A slot is written once between two barriers.
struct Slot {
  std::atomic<unsigned> barriers;  // that its lane has passed, so that it is today's value
  uint64_t value;
};
inline constexpr unsigned kMostShuffles = 64;  // between two barriers
inline Slot slots[kMostShuffles][kThreads];
inline thread_local unsigned barriers = 1, shuffles = 0;

inline std::barrier of_block(kThreads);

inline void meet() {
  of_block.arrive_and_wait();
  ++barriers;
  shuffles = 0;
}

// The threads of a block, which stay from one launch to the next: to make them takes longer than
// what most kernels do here.
class Threads {
 public:
  Threads() {
    for (unsigned i = 0; i < kThreads; ++i) {
      threads_.emplace_back([this, i] {
        threadIdx.x = i;
        for (;;) {
          with_host_.arrive_and_wait();
          if (!work_) return;
          work_();
          with_host_.arrive_and_wait();
        }
      });
    }
  }
  ~Threads() {
    work_ = nullptr;
    with_host_.arrive_and_wait();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(std::function<void()> work) {
    work_ = std::move(work);
    with_host_.arrive_and_wait();
    with_host_.arrive_and_wait();
  }

 private:
  std::barrier<> with_host_{kThreads + 1};
  std::function<void()> work_;
  std::vector<std::thread> threads_;
};

inline Threads& block() {
  static Threads threads;
  return threads;
}

// What kernels moved, and what of it in accesses of 16 bytes.
inline std::atomic<int64_t> bytes, wide_bytes;

template <class W>
void note_access(const void* at) {
  bytes.fetch_add(sizeof(W), std::memory_order_relaxed);
  if (sizeof(W) == 16) wide_bytes.fetch_add(sizeof(W), std::memory_order_relaxed);
  if (reinterpret_cast<uintptr_t>(at) % sizeof(W) == 0) return;
  std::printf("access of %zu bytes at %p is misaligned\n", sizeof(W), at);
  std::abort();
}

}  // namespace host_sim

inline void __syncthreads() {
  host_sim::meet();
}

template <class T>
T __shfl_down_sync(unsigned, T value, int lanes) {
  static_assert(sizeof(T) <= 8);
  if (host_sim::shuffles == host_sim::kMostShuffles) {
    std::printf("more than %u shuffles between two barriers\n", host_sim::kMostShuffles);
    std::abort();
  }
  host_sim::Slot* const slots = host_sim::slots[host_sim::shuffles++];
  host_sim::Slot& mine = slots[threadIdx.x];
  std::memcpy(&mine.value, &value, sizeof value);
  mine.barriers.store(host_sim::barriers, std::memory_order_release);
  mine.barriers.notify_all();
  if (threadIdx.x % 32 + lanes < 32) {
    host_sim::Slot& other = slots[threadIdx.x + lanes];
    for (unsigned now;
         (now = other.barriers.load(std::memory_order_acquire)) != host_sim::barriers;)
      other.barriers.wait(now, std::memory_order_acquire);
    std::memcpy(&value, &other.value, sizeof value);
  }
  return value;
}

namespace ichfast {

template <class W>
W load_word(const void* at) {
  host_sim::note_access<W>(at);
  W word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

template <class W>
void store_word(void* at, W word) {
  host_sim::note_access<W>(at);
  std::memcpy(at, &word, sizeof word);
}

// What cuda/*.cu launch with, simulated.
struct SimulatedLaunch {
  static constexpr int kThreads = host_sim::kThreads;
  static constexpr int64_t kPlentyOfBlocks = 8;

  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), int64_t blocks,
                  const Arguments&... arguments) const {
    gridDim.x = unsigned(blocks);
    host_sim::block().run([&] {
      for (int64_t block = 0; block < blocks; ++block) {
        blockIdx.x = unsigned(block);
        kernel(arguments...);
        host_sim::meet();
      }
    });
  }
};

}  // namespace ichfast
