// For which dtypes there are CUDA kernels of their own; any other mixture goes voxel by voxel.
#pragma once

#include "cuda/common/cuda.h"

namespace ichfast {

// Element types that tensors may have together.
template <class... T>
struct Types {};

// Calls f.operator()<float, T...>() if the tensors have these types, in this order; says whether.
template <class... T, class F, class... Tensors>
bool call_for(Types<T...>, const F& f, const Tensors&... tensors) {
  if (!((tensors.scalar_type() == kScalarType<T>) && ...)) return false;
  f.template operator()<float, T...>();
  return true;
}

// The same for the first of several combinations that they have.
template <class... Combination, class F, class... Tensors>
bool call_for_first(const F& f, const Tensors&... tensors) {
  return (call_for(Combination{}, f, tensors...) || ...);
}

// Calls f.operator()<A, P, T>(): masks are bool, uint8 or float, or of the prediction's own type;
// any other mixture goes voxel by voxel. A computes: double for double predictions.
template <class F>
void dispatch_overlap(const Tensor& prediction, const Tensor& target, const F& f) {
  if (call_for_first<Types<float, Bool>, Types<float, uint8_t>, Types<float, float>,
                     Types<BFloat16, Bool>, Types<BFloat16, uint8_t>, Types<BFloat16, float>,
                     Types<BFloat16, BFloat16>, Types<Half, Bool>, Types<Half, uint8_t>,
                     Types<Half, float>, Types<Half, Half>>(f, prediction, target))
    return;
  if (is_double(prediction))
    f.template operator()<double, Floating, Target>();
  else
    f.template operator()<float, Floating, Target>();
}

// An image beside logits: both of one dtype, or a float32 image beside what autocast makes of a
// network. `alike`: what further tensors there are have the dtype that goes with these two. Calls
// f.operator()<A, X, Z>(); A computes.
template <class F>
void dispatch_attention(const Tensor& image, const Tensor& logits, bool alike, bool in_double,
                        const F& f) {
  if (alike && call_for_first<Types<float, float>, Types<BFloat16, BFloat16>, Types<Half, Half>,
                              Types<float, BFloat16>, Types<float, Half>>(f, image, logits))
    return;
  if (in_double)
    f.template operator()<double, Floating, Floating>();
  else
    f.template operator()<float, Floating, Floating>();
}

}  // namespace ichfast
