// For which dtypes there are CUDA kernels of their own; any other mixture goes voxel by voxel.
#pragma once

#include "cuda/common/cuda.h"

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

// An image beside logits: both of one dtype, or a float32 image beside what autocast makes of a
// network. `alike`: what further tensors there are have the dtype that goes with these two. Calls
// f.operator()<A, X, Z>().
template <class F>
void dispatch_attention(const Tensor& image, const Tensor& logits, bool alike, bool any_double,
                        const F& f) {
  const auto with = [&]<class X, class Z>() {
    if (!alike || image.scalar_type() != kScalarType<X> || logits.scalar_type() != kScalarType<Z>)
      return false;
    f.template operator()<float, X, Z>();
    return true;
  };
  if (with.template operator()<float, float>() || with.template operator()<BFloat16, BFloat16>() ||
      with.template operator()<Half, Half>() || with.template operator()<float, BFloat16>() ||
      with.template operator()<float, Half>())
    return;
  if (any_double)
    f.template operator()<double, Floating, Floating>();
  else
    f.template operator()<float, Floating, Floating>();
}

}  // namespace ichfast
