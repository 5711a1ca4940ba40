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

template <class T>
ICHFAST_HD Pair<T> masked(T image, T logit) {
  const T foreground = image * sigmoid(logit);
  return {image - foreground, foreground};
}

template <class T>
ICHFAST_HD T grad_image(T logit, Pair<T> grad) {
  return grad.background + (grad.foreground - grad.background) * sigmoid(logit);
}

template <class T>
ICHFAST_HD T grad_logit(T image, T logit, Pair<T> grad) {
  return (grad.foreground - grad.background) * image * sigmoid_slope(sigmoid(logit));
}

}  // namespace ichfast::attention_mask
