// Which block and thread of a CUDA grid takes which voxels.
//
// Each row is cut into chunks, one a block. It follows from the shapes and dtypes alone, never from
// where a tensor lies or how, nor from the GPU: so sums have the same bits in every layout.
#pragma once

#include "kernels/common/rows.h"

namespace ichfast {

// Steps of each thread, at least and at most. Many make few blocks, of which a small image has too
// few to fill a GPU; where there is plenty, they share out what a block does but once (where it is,
// sums over its threads), and leave fewer sums to add up.
constexpr int kSteps = 4, kMostSteps = 64;

// Resident threads that registers must leave room for: at 64 bytes of loads each, 64 KiB in
// flight on each multiprocessor, three times what hides the latency of an H100's memory
// (3.35 TB/s · 0.8 µs / 132 = 20 KiB).
constexpr int kResidentThreads = 1024;

// The same in blocks; half as many where double takes twice the registers.
template <class A, int kThreads>
constexpr int kResidentBlocks = kResidentThreads / kThreads * int(sizeof(float)) / int(sizeof(A));

// The least chunk.
template <int kWidth, int kThreads>
struct Chunking {
  static constexpr int64_t kVoxels = int64_t(kWidth) * kThreads * kSteps;
};

// n / d for n and d below 2^31, by a multiplication: a GPU divides in some 20 instructions. With
// 2^l the least power of two that is not below d, and m = ⌊2^(31+l)/d⌋ + 1, n·m/2^(31+l) exceeds
// n/d by less than 1/d (Granlund and Montgomery 1994). d = 0 counts as 1: what it is of has no
// blocks.
class Divisor {
 public:
  explicit Divisor(int64_t d) : divisor_(uint32_t(d > 0 ? d : 1)) {
    while (uint64_t(1) << (shift_ - 31) < divisor_) ++shift_;
    multiplier_ = uint32_t((uint64_t(1) << shift_) / divisor_ + 1);
  }

  ICHFAST_HD uint32_t divisor() const { return divisor_; }
  ICHFAST_HD uint32_t divide(uint32_t n) const {
    return uint32_t((uint64_t(n) * multiplier_) >> shift_);
  }

 private:
  uint32_t divisor_, multiplier_;
  uint32_t shift_ = 31;
};

// How the rows of a launch are cut, worked out once on the host.
struct Cut {
  int64_t rows, voxels;  // of all images; in each
  int32_t steps;         // of each thread: a power of two
  Divisor channels, per_row;

  int64_t blocks() const { return rows * per_row.divisor(); }
};

template <int kWidth, class Launch>
Cut cut_rows(int64_t images, int64_t channels, int64_t voxels) {
  const int64_t rows = images * channels;
  const auto per_row = [&](int64_t steps) {
    const int64_t of_chunk = kWidth * Launch::kThreads * steps;
    return (voxels + of_chunk - 1) / of_chunk;
  };
  int32_t steps = kSteps;
  while (steps < kMostSteps && rows * per_row(2 * steps) >= Launch::kPlentyOfBlocks) steps *= 2;
  return {voxels > 0 ? rows : 0, voxels, steps, Divisor(channels), Divisor(per_row(steps))};
}

// What the calling block takes. Blocks count channels fastest, so that those that read the same
// lines of a channels-last tensor run side by side.
template <int kWidth, int kThreads>
class Chunk {
 public:
  int64_t image, channel;
  int64_t slot;  // (image, channel, chunk) in that order: where the sums of the chunk go

  ICHFAST_DEVICE explicit Chunk(const Cut& cut) : voxels_(cut.voxels), steps_(cut.steps) {
    const int64_t voxels = cut.voxels;
    const uint32_t channels = cut.channels.divisor(), per_row = cut.per_row.divisor();
    const uint32_t rest = cut.channels.divide(blockIdx.x);
    channel = blockIdx.x - rest * channels;
    image = cut.per_row.divide(rest);
    index_ = rest - uint32_t(image) * per_row;
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
    const int64_t start = int64_t(index_) * (kStride * steps_);
    const int64_t mine = start + threadIdx.x * kWidth;
    if (kUnroll > 1 && start + kStride * steps_ <= main_) {
#pragma unroll 1
      for (int s = 0; s < steps_; s += kUnroll) {
#pragma unroll
        for (int u = 0; u < kUnroll; ++u)
          body(Step<kAccess, kWidth>{head_ + mine + (s + u) * kStride});
      }
    } else {
#pragma unroll 1
      for (int s = 0; s < steps_ && mine + s * kStride < main_; ++s)
        body(Step<kAccess, kWidth>{head_ + mine + s * kStride});
    }
  }

  int64_t voxels_, head_, main_;
  uint32_t index_;
  int32_t steps_;
  bool last_;
};

}  // namespace ichfast
