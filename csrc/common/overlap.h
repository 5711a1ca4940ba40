// The dtypes of a prediction beside a target, for the ops that count their overlap on the GPU.
#pragma once

#include "common/cuda.h"

namespace ichfast {

// Calls f.operator()<A, P, T>(): masks are bool, uint8 or float, or of the prediction's own type;
// any other mixture goes voxel by voxel. A computes: double for double predictions.
template <class F>
void dispatch_overlap(const Tensor& prediction, const Tensor& target, const F& f) {
  const auto with = [&]<class P, class T>() {
    if (prediction.scalar_type() != kScalarType<P> || target.scalar_type() != kScalarType<T>)
      return false;
    f.template operator()<float, P, T>();
    return true;
  };
  const auto with_masks = [&]<class P>() {
    return with.template operator()<P, Bool>() || with.template operator()<P, uint8_t>() ||
           with.template operator()<P, float>();
  };
  if (with_masks.template operator()<float>() || with_masks.template operator()<BFloat16>() ||
      with_masks.template operator()<Half>() || with.template operator()<BFloat16, BFloat16>() ||
      with.template operator()<Half, Half>())
    return;
  if (is_double(prediction))
    f.template operator()<double, Floating, Target>();
  else
    f.template operator()<float, Floating, Target>();
}

}  // namespace ichfast
