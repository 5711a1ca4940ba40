// One voxel of the masked images: b = x(1−m), f = xm with m = σ(z).
//
//   ∂/∂x = g_b(1−m) + g_f m,      ∂/∂z = (g_f − g_b) x m(1−m).
#pragma once

#include "math/sigmoid.h"

namespace ichfast::attention_mask {

template <class T>
struct Pair {
  T background, foreground;
};

// kCoarse, here as below: for logits of a half type.
template <bool kCoarse = false, class T>
ICHFAST_HD Pair<T> masked(T image, T logit) {
  const Sigmoid<T> m = whole_sigmoid<kCoarse>(logit);
  return {image * m.complement, image * m.value};
}

template <bool kCoarse = false, class T>
ICHFAST_HD T grad_image(T logit, Pair<T> grad) {
  const Sigmoid<T> m = whole_sigmoid<kCoarse>(logit);
  return grad.background * m.complement + grad.foreground * m.value;
}

template <bool kCoarse = false, class T>
ICHFAST_HD T grad_logit(T image, T logit, Pair<T> grad) {
  return (grad.foreground - grad.background) * image * whole_sigmoid<kCoarse>(logit).slope;
}

}  // namespace ichfast::attention_mask
