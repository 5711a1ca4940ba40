// One voxel of the attention-masked MSE (L_u; Wang et al. 2020, Equation 1), whose two errors are
// balanced in one of two ways. With m = σ(z) and the residuals d_b = x(1−m) − r_b, d_f = xm − r_f:
//
// kPaper, by area, each error a mean over all N voxels:
//
//   L = a_b E_b + a_f E_f     with  a_f = Σm/N,  a_b = 1 − a_f,
//   E_b = Σd_b²/N,   E_f = Σd_f²/N;
//
//   ∂L/∂r_b = −(2a_b/N) d_b,    ∂L/∂r_f = −(2a_f/N) d_f,
//   ∂L/∂m   = (E_f − E_b)/N + (2x/N)(a_f d_f − a_b d_b),   ∂L/∂z = ∂L/∂m · m(1−m).
//
// Once r_f is 0 outside of the blood, E_f falls with the area of the blood and a_f E_f with its
// square.
//
// kRegion, whatever the area: each error is a mean over the foreground and one over the background,
//
//   E_b = ½(⟨d_b²⟩_f + ⟨d_b²⟩_b),   E_f = ½(⟨d_f²⟩_f + ⟨d_f²⟩_b),   L = ½(E_b + E_f),
//   ⟨e⟩_f = Σme/P with P = Σm + 1,   ⟨e⟩_b = Σ(1−m)e/Q with Q = Σ(1−m) + 1.
//
// With e = d_b² + d_f², F = ⟨e⟩_f, B = ⟨e⟩_b this is L = ¼(F + B), and a voxel counts for
// w = ¼(m/P + (1−m)/Q):
//
//   ∂L/∂r_b = −2w d_b,    ∂L/∂r_f = −2w d_f,
//   ∂L/∂m   = ¼((e − F)/P − (e − B)/Q) + 2wx(d_f − d_b),   since ∂e/∂m = 2x(d_f − d_b).
//
// - Each error needs both regions. With E_b over the background alone and E_f over the foreground
//   alone, r_b = r_f = x is a solution: two copies of the image, which do not depend on the mask.
// - The 1, one voxel, fades out a region smaller than that: without blood L = ¼B, no division by 0.
// - Where m = ½ everywhere, both forms are the same but for that 1.
#pragma once

#include "math/sigmoid.h"

namespace ichfast::attention_wmse {

enum class Balance { kPaper, kRegion };

// Of one image: Σm, then Σd_b² and Σd_f² (kPaper) or Σ(1−m)e and Σme (kRegion). All that backward
// needs beside its inputs.
enum Sum { kMask, kBackground, kForeground, kSums };

template <class T>
struct Voxel {
  Sigmoid<T> mask;           // m, 1−m, m(1−m)
  T slope_b, slope_f;        // of the reconstructions' sigmoids; 1 without
  T residual_b, residual_f;  // d_b, d_f
};

// kCoarse: for logits of a half type.
template <bool kCoarse = false, class T>
ICHFAST_HD Voxel<T> voxel(T image, T logit, T background, T foreground, bool sigmoid_r) {
  const Sigmoid<T> m = whole_sigmoid<kCoarse>(logit);
  const T masked_b = image * m.complement, masked_f = image * m.value;
  if (!sigmoid_r) return {m, T(1), T(1), masked_b - background, masked_f - foreground};
  const auto [b, f] = two_sigmoids<kCoarse>(background, foreground);
  return {m, b.slope, f.slope, masked_b - b.value, masked_f - f.value};
}

// e
template <class T>
ICHFAST_HD T squares(const Voxel<T>& v) {
  return v.residual_b * v.residual_b + v.residual_f * v.residual_f;
}

// Adds a voxel to the three sums.
template <Balance kBalance, class T>
ICHFAST_HD void add(const Voxel<T>& v, T& mask, T& background, T& foreground) {
  mask += v.mask.value;
  if constexpr (kBalance == Balance::kPaper) {
    background += v.residual_b * v.residual_b;
    foreground += v.residual_f * v.residual_f;
  } else {
    const T e = squares(v);
    background += v.mask.complement * e;
    foreground += v.mask.value * e;
  }
}

template <class T>
struct Loss {
  T weight_b, weight_f;  // a_b, a_f; or ¼/Q, ¼/P
  T error_b, error_f;    // E_b, E_f; or B, F
  T value;
};

template <class T>
ICHFAST_HD Loss<T> loss(Balance balance, const T* sums, T n) {
  if (balance == Balance::kPaper) {
    const T per_voxel = T(1) / n;
    const T weight_f = sums[kMask] * per_voxel, weight_b = T(1) - weight_f;
    const T error_b = sums[kBackground] * per_voxel, error_f = sums[kForeground] * per_voxel;
    return {weight_b, weight_f, error_b, error_f, weight_b * error_b + weight_f * error_f};
  } else {
    const T per_b = T(1) / (n - sums[kMask] + T(1)), per_f = T(1) / (sums[kMask] + T(1));
    const T error_b = sums[kBackground] * per_b, error_f = sums[kForeground] * per_f;
    return {T(0.25) * per_b, T(0.25) * per_f, error_b, error_f, T(0.25) * (error_b + error_f)};
  }
}

// What is the same for all voxels of an image, times the gradient g that arrives at its loss.
template <class T>
struct Scale {
  T background, foreground;  // 2 a_b g/N, 2 a_f g/N; or ½ g/Q, ½ g/P
  T area;                    // (E_f − E_b) g/N; or ¼(B/Q − F/P) g
};

template <class T>
ICHFAST_HD Scale<T> scale(Balance balance, const Loss<T>& l, T grad, T n) {
  if (balance == Balance::kPaper) {
    const T g = grad * (T(1) / n);  // the division is the one of loss()
    return {T(2) * l.weight_b * g, T(2) * l.weight_f * g, (l.error_f - l.error_b) * g};
  } else {
    return {T(2) * l.weight_b * grad, T(2) * l.weight_f * grad,
            (l.weight_b * l.error_b - l.weight_f * l.error_f) * grad};
  }
}

// 2wg, what a voxel's residual counts for in kRegion.
template <class T>
ICHFAST_HD T weight(const Voxel<T>& v, const Scale<T>& s) {
  return v.mask.value * s.foreground + v.mask.complement * s.background;
}

template <Balance kBalance, class T>
ICHFAST_HD T grad_background(const Voxel<T>& v, const Scale<T>& s, bool sigmoid_r) {
  const T w = kBalance == Balance::kPaper ? s.background : weight(v, s);
  const T g = -w * v.residual_b;
  return sigmoid_r ? g * v.slope_b : g;
}

template <Balance kBalance, class T>
ICHFAST_HD T grad_foreground(const Voxel<T>& v, const Scale<T>& s, bool sigmoid_r) {
  const T w = kBalance == Balance::kPaper ? s.foreground : weight(v, s);
  const T g = -w * v.residual_f;
  return sigmoid_r ? g * v.slope_f : g;
}

template <Balance kBalance, class T>
ICHFAST_HD T grad_logit(T image, const Voxel<T>& v, const Scale<T>& s) {
  if constexpr (kBalance == Balance::kPaper) {
    const T g = s.area + image * (s.foreground * v.residual_f - s.background * v.residual_b);
    return g * v.mask.slope;
  } else {
    const T w = weight(v, s), half = T(0.5) * squares(v);
    const T area = s.area + (s.foreground * half - s.background * half);
    return (area + image * (w * (v.residual_f - v.residual_b))) * v.mask.slope;
  }
}

}  // namespace ichfast::attention_wmse
