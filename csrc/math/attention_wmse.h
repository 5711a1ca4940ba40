// One voxel of the area-weighted, attention-masked MSE (L_u; Wang et al. 2020, Equation 1):
//
//   L = a_b E_b + a_f E_f     with  m = σ(z),  a_f = Σm/N,  a_b = 1 − a_f,
//   E_b = Σ(x(1−m) − r_b)²/N,   E_f = Σ(xm − r_f)²/N.
//
// With the residuals d_b = x(1−m) − r_b and d_f = xm − r_f:
//
//   ∂L/∂r_b = −(2a_b/N) d_b,    ∂L/∂r_f = −(2a_f/N) d_f,
//   ∂L/∂m   = (E_f − E_b)/N + (2x/N)(a_f d_f − a_b d_b),   ∂L/∂z = ∂L/∂m · m(1−m).
#pragma once

#include "math/sigmoid.h"

namespace ichfast::attention_wmse {

// Σm, Σd_b², Σd_f² of one image: all that backward needs beside its inputs.
enum Sum { kMask, kBackground, kForeground, kSums };

template <class T>
struct Voxel {
  T mask, background, foreground;  // m and the two reconstructions, after their sigmoid if any
  T residual_b, residual_f;        // d_b, d_f
};

template <class T>
ICHFAST_HD Voxel<T> voxel(T image, T logit, T background, T foreground, bool sigmoid_r) {
  const T m = sigmoid(logit);
  const T r_b = sigmoid_r ? sigmoid(background) : background;
  const T r_f = sigmoid_r ? sigmoid(foreground) : foreground;
  const T masked = image * m;
  return {m, r_b, r_f, (image - masked) - r_b, masked - r_f};
}

template <class T>
struct Loss {
  T weight_b, weight_f;  // a_b, a_f
  T error_b, error_f;    // E_b, E_f
  T value;
};

template <class T>
ICHFAST_HD Loss<T> loss(const T* sums, T n) {
  const T per_voxel = T(1) / n;
  const T weight_f = sums[kMask] * per_voxel, weight_b = T(1) - weight_f;
  const T error_b = sums[kBackground] * per_voxel, error_f = sums[kForeground] * per_voxel;
  return {weight_b, weight_f, error_b, error_f, weight_b * error_b + weight_f * error_f};
}

// What is the same for all voxels of an image, times the gradient g that arrives at its loss.
template <class T>
struct Scale {
  T background, foreground;  // 2 a_b g/N, 2 a_f g/N
  T area;                    // (E_f − E_b) g/N
};

template <class T>
ICHFAST_HD Scale<T> scale(const Loss<T>& l, T grad, T n) {
  const T g = grad * (T(1) / n);  // the division is the one of loss()
  return {T(2) * l.weight_b * g, T(2) * l.weight_f * g, (l.error_f - l.error_b) * g};
}

template <class T>
ICHFAST_HD T grad_background(const Voxel<T>& v, const Scale<T>& s, bool sigmoid_r) {
  const T g = -s.background * v.residual_b;
  return sigmoid_r ? g * sigmoid_slope(v.background) : g;
}

template <class T>
ICHFAST_HD T grad_foreground(const Voxel<T>& v, const Scale<T>& s, bool sigmoid_r) {
  const T g = -s.foreground * v.residual_f;
  return sigmoid_r ? g * sigmoid_slope(v.foreground) : g;
}

template <class T>
ICHFAST_HD T grad_logit(T image, const Voxel<T>& v, const Scale<T>& s) {
  const T g = s.area + image * (s.foreground * v.residual_f - s.background * v.residual_b);
  return g * sigmoid_slope(v.mask);
}

}  // namespace ichfast::attention_wmse
