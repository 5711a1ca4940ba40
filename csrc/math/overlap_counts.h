// One voxel of the confusion counts: positive where prediction > threshold and where target > 0.
#pragma once

#include <cstdint>

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

}  // namespace ichfast::overlap_counts
