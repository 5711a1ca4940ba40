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

enum Sum { kTP = tversky::kTP, kFP = tversky::kFP, kFN = tversky::kFN, kCE, kCount, kSums };

// log(1+e) for 0 ≤ e ≤ 1: e times the minimax polynomial of degree 8 for log(1+e)/e that is 1 at 0
// (relative error 3.3e-8; with rounding 2.0e-7). On GPUs as well: log1pf has branches for arguments
// that do not come here.
ICHFAST_HD float log1p_of_unit(float e) {
  float p = 5.364840384572744e-3f;
  p = p * e - 3.0065856873989105e-2f;
  p = p * e + 7.920464128255844e-2f;
  p = p * e - 1.375381052494049e-1f;
  p = p * e + 1.9153659045696259e-1f;
  p = p * e - 2.4857164919376373e-1f;
  p = p * e + 3.332132399082184e-1f;
  p = p * e - 4.9999648332595825e-1f;
  p = p * e + 1.0f;
  return p * e;
}

ICHFAST_HD double log1p_of_unit(double e) {
  return ::log1p(e);
}

// By the sign of z. On the bits, as in `exponential` and for the same reason.
ICHFAST_HD float choose(float z, float positive, float negative) {
#if defined(__CUDA_ARCH__)
  return z < 0 ? negative : positive;
#else
  int32_t sign;
  uint32_t p, n;
  std::memcpy(&sign, &z, sizeof sign);
  std::memcpy(&p, &positive, sizeof p);
  std::memcpy(&n, &negative, sizeof n);
  p ^= (p ^ n) & uint32_t(sign >> 31);
  std::memcpy(&positive, &p, sizeof p);
  return positive;
#endif
}

ICHFAST_HD double choose(double z, double positive, double negative) {
  return z < 0 ? negative : positive;
}

template <class T>
struct Contribution {
  T tp, fp, fn, ce;
};

template <class T>
ICHFAST_HD Contribution<T> contribution(T z, T t, T w, T q) {
  const T magnitude = std::abs(z);
  const T e = exponential(-magnitude), r = reciprocal(T(1) + e), er = e * r;
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

template <class T>
ICHFAST_HD T grad_logit(T z, T t, T w, T q, const Gradient<T>& g) {
  const T e = exponential(-std::abs(z)), r = reciprocal(T(1) + e), er = e * r;
  const T p = choose(z, r, er), not_p = choose(z, er, r);
  const T foreground = w * t, background = w * (T(1) - t);
  return (g.constant * w + g.slope * foreground) * (er * r) +
         g.cross_entropy * (p * background - q * foreground * not_p);
}

}  // namespace ichfast::tversky_bce
