// The Tversky loss and the binary cross-entropy of one (image, channel), from logits z: five sums
// over its voxels of weight w.
//
//   TP = Σwpt,  FP = Σwp(1−t),  FN = Σw(1−p)t,  N = Σw  with p = σ(z),
//   CE = Σw[q·t·softplus(−z) + (1−t)·softplus(z)],
//
// softplus(x) = log(1+e^x) = −log σ(−x), q the weight of positive voxels. The Tversky loss of the
// first three is that of math/tversky.h, with ∂L/∂p = w(c₀ + c₁t). With ∂softplus(x)/∂x = σ(x), and
// g the gradient that arrives at CE,
//
//   ∂/∂z = w{(c₀ + c₁t)·p(1−p) + g[(1−t)p − q·t(1−p)]}.
//
// No difference of two close numbers is taken, and nothing overflows, however large z: all follows
// from e = e^−|z| ≤ 1. With r = 1/(1+e), σ(|z|) = r, 1 − σ(|z|) = er, softplus(−|z|) = log(1+e) and
// softplus(|z|) = |z| + log(1+e).
#pragma once

#include "math/sigmoid.h"
#include "math/tversky.h"

namespace ichfast::tversky_bce {

using tversky::Parameters;

// Backward needs the first kSaved alone; the others are results.
enum Sum { kTP = tversky::kTP, kFP = tversky::kFP, kFN = tversky::kFN, kCE, kCount, kSums };
inline constexpr int kSaved = tversky::kSums;

template <class T>
struct Contribution {
  T tp, fp, fn, ce;
};

// kCoarse, here as below: for logits of a half type.
template <bool kCoarse = false, class T>
ICHFAST_HD Contribution<T> contribution(T z, T t, T w, T q) {
  const T magnitude = std::abs(z);
  const T e = exponential_to<kCoarse>(-magnitude), r = reciprocal(T(1) + e), er = e * r;
  const T small = log1p_of_unit(e), large = magnitude + small;
  const T p = choose(z, r, er), not_p = choose(z, er, r);
  const T foreground = w * t, background = w * (T(1) - t);
  return {p * foreground, p * background, not_p * foreground,
          q * foreground * choose(z, small, large) + background * choose(z, large, small)};
}

// ∂L/∂p = w(constant + slope·t) and g, all times the gradients that arrive at L and CE.
template <class T>
struct Gradient {
  T constant, slope, cross_entropy;
};

template <class T>
ICHFAST_HD Gradient<T> gradient(const T* sums, const Parameters<T>& parameters, T grad_tversky,
                                T grad_cross_entropy) {
  const auto overlap = tversky::gradient(sums, parameters, grad_tversky);
  return {overlap.constant, overlap.slope, grad_cross_entropy};
}

template <bool kCoarse = false, class T>
ICHFAST_HD T grad_logit(T z, T t, T w, T q, const Gradient<T>& g) {
  const T e = exponential_to<kCoarse>(-std::abs(z)), r = reciprocal(T(1) + e), er = e * r;
  const T p = choose(z, r, er), not_p = choose(z, er, r);
  const T foreground = w * t, background = w * (T(1) - t);
  return (g.constant * w + g.slope * foreground) * (er * r) +
         g.cross_entropy * (p * background - q * foreground * not_p);
}

}  // namespace ichfast::tversky_bce
