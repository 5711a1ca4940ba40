// One voxel of the confusion counts: positive where prediction > threshold and where target > 0.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace ichfast::overlap_counts {

enum Count { kTP, kFP, kFN, kNaN, kCounts };

template <class T>
ICHFAST_HD void count(T prediction, T target, T threshold, int32_t* counts) {
  const int32_t p = prediction > threshold, t = target > T(0);
  counts[kTP] += p & t;
  counts[kFP] += p & ~t;
  counts[kFN] += ~p & t;
  counts[kNaN] += (prediction != prediction) | (target != target);
}

}  // namespace ichfast::overlap_counts
