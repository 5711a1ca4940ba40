// Which block and thread of a CUDA grid takes which voxels.
//
// Each row is cut into chunks, one a block. It follows from the shapes and dtypes alone, never from
// where a tensor lies or how, nor from the GPU: so sums have the same bits in every layout.
#pragma once

#include "kernels/common/rows.h"

namespace ichfast {

// Steps of each thread. More would keep more loads in flight and make fewer, larger blocks, of
// which a small image has too few to fill a GPU.
constexpr int kSteps = 4;

// Resident threads that registers must leave room for: at 64 bytes of loads each, 64 KiB in
// flight on each multiprocessor, three times what hides the latency of an H100's memory
// (3.35 TB/s · 0.8 µs / 132 = 20 KiB).
constexpr int kResidentThreads = 1024;

// The same in blocks; half as many where double takes twice the registers.
template <class A, int kThreads>
constexpr int kResidentBlocks = kResidentThreads / kThreads * int(sizeof(float)) / int(sizeof(A));

template <int kWidth, int kThreads>
struct Chunking {
  static constexpr int64_t kVoxels = int64_t(kWidth) * kThreads * kSteps;

  ICHFAST_HD static int64_t per_row(int64_t voxels) { return (voxels + kVoxels - 1) / kVoxels; }
};

// What the calling block takes. Blocks count channels fastest, so that those that read the same
// lines of a channels-last tensor run side by side.
template <int kWidth, int kThreads>
class Chunk {
 public:
  int64_t image, channel;
  int64_t slot;  // (image, channel, chunk) in that order: where the sums of the chunk go

  ICHFAST_DEVICE Chunk(int64_t channels, int64_t voxels) : voxels_(voxels) {
    const int64_t per_row = Chunking<kWidth, kThreads>::per_row(voxels);
    const uint32_t rest = blockIdx.x / uint32_t(channels);
    channel = blockIdx.x % uint32_t(channels);
    image = rest / uint32_t(per_row);
    index_ = rest % uint32_t(per_row);
    const int64_t row = image * channels + channel;
    slot = row * per_row + index_;
    last_ = index_ == per_row - 1;
    // The voxels before the first vector of a contiguous tensor.
    const int64_t misalignment = row * voxels % kWidth;
    head_ = misalignment == 0 ? 0 : kWidth - misalignment;
    if (head_ > voxels) head_ = voxels;
    main_ = (voxels - head_) / kWidth * kWidth;
  }

  // The voxel that steps of vectors count from.
  ICHFAST_DEVICE int64_t first_vector() const { return head_; }

  // Calls body(Step) for each step of the calling thread; kPairs where a pair is among the rows.
  // kUnroll steps of a whole chunk have no test in between, so that their loads are in flight at
  // once.
  template <bool kPairs, int kUnroll, class Body>
  ICHFAST_DEVICE void for_each_step(Access access, const Body& body) const {
    if constexpr (kWidth > 1) {
      if (access == Access::kVector) run<Access::kVector, kUnroll>(body);
      if constexpr (kPairs)
        if (access == Access::kInterleaved) run<Access::kInterleaved, kUnroll>(body);
    }
    if (access == Access::kScalar) run<Access::kScalar, 1>(body);
    // Head and tail, one voxel a thread.
    const int64_t tail = head_ + main_ + threadIdx.x;
    if (index_ == 0 && threadIdx.x < head_) body(Step<Access::kScalar, 1>{int64_t(threadIdx.x)});
    if (last_ && tail < voxels_) body(Step<Access::kScalar, 1>{tail});
  }

 private:
  template <Access kAccess, int kUnroll, class Body>
  ICHFAST_DEVICE void run(const Body& body) const {
    static_assert(kSteps % kUnroll == 0);
    constexpr int kStride = kWidth * kThreads;
    const int64_t start = index_ * Chunking<kWidth, kThreads>::kVoxels;
    const int64_t mine = start + threadIdx.x * kWidth;
    if (kUnroll > 1 && start + Chunking<kWidth, kThreads>::kVoxels <= main_) {
#pragma unroll 1
      for (int s = 0; s < kSteps; s += kUnroll) {
#pragma unroll
        for (int u = 0; u < kUnroll; ++u)
          body(Step<kAccess, kWidth>{head_ + mine + (s + u) * kStride});
      }
    } else {
#pragma unroll 1
      for (int s = 0; s < kSteps && mine + s * kStride < main_; ++s)
        body(Step<kAccess, kWidth>{head_ + mine + s * kStride});
    }
  }

  int64_t index_, voxels_, head_, main_;
  bool last_;
};

}  // namespace ichfast
