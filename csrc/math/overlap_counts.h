// One voxel of the confusion counts: positive where prediction > threshold and where target > 0.
#pragma once

#include <cstdint>
#include <cstring>

#include "math/host_device.h"

namespace ichfast::overlap_counts {

enum Count { kTP, kFP, kFN, kNaN, kCounts };

struct Voxel {  // 0 or 1 each
  int32_t tp, fp, fn, nan;
};

template <class T>
ICHFAST_HD Voxel voxel(T prediction, T target, T threshold) {
  const int32_t p = prediction > threshold, t = target > T(0);
  return {p & t, p & ~t, ~p & t, (prediction != prediction) | (target != target)};
}

template <class T>
ICHFAST_HD void count(T prediction, T target, T threshold, int32_t* counts) {
  const Voxel v = voxel(prediction, target, threshold);
  counts[kTP] += v.tp;
  counts[kFP] += v.fp;
  counts[kFN] += v.fn;
  counts[kNaN] += v.nan;
}

// Four voxels, of which each question is one byte, 0 or 1: on a GPU, whose integer units are what
// limits the counting, four voxels cost about as many instructions as one. a > b is the sign of
// b − a, which the units for floats find. (For a = b = ∞ that is NaN, with a GPU's sign: +.)
ICHFAST_HD uint32_t exceeds(const float* numbers, float threshold) {
#if defined(__CUDA_ARCH__)
  uint32_t signs[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) signs[k] = __float_as_uint(threshold - numbers[k]);
  const uint32_t low = __byte_perm(signs[0], signs[1], 0x73);
  const uint32_t high = __byte_perm(signs[2], signs[3], 0x73);
  return __byte_perm(low, high, 0x5410) >> 7 & 0x01010101u;
#else
  uint32_t result = 0;
  for (int k = 0; k < 4; ++k) result |= uint32_t(numbers[k] > threshold) << 8 * k;
  return result;
#endif
}

// Sums of up to 255 such words, byte by byte, and what tells a NaN.
struct Packed {
  uint32_t positive = 0, target = 0, both = 0;
  uint32_t largest = 0;  // of the bits of all numbers, without their signs

  ICHFAST_HD void look_for_nan(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits *= 2;
    largest = largest > bits ? largest : bits;
  }

  template <bool kNaNTarget>
  ICHFAST_HD void count(const float* predictions, const float* targets, float threshold) {
    const uint32_t p = exceeds(predictions, threshold), t = exceeds(targets, 0.0f);
    positive += p;
    target += t;
    both += p & t;
    for (int k = 0; k < 4; ++k) {
      look_for_nan(predictions[k]);
      if (kNaNTarget) look_for_nan(targets[k]);
    }
  }

  ICHFAST_HD void add_to(int32_t* counts) const {
    const auto sum = [](uint32_t bytes) {
      return int32_t((bytes & 255) + (bytes >> 8 & 255) + (bytes >> 16 & 255) + (bytes >> 24));
    };
    const int32_t p = sum(positive), t = sum(target), tp = sum(both);
    counts[kTP] += tp;
    counts[kFP] += p - tp;
    counts[kFN] += t - tp;
    counts[kNaN] += largest > 0xff000000u;
  }
};

}  // namespace ichfast::overlap_counts
