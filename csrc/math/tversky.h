// The Tversky loss of one (image, channel), from three sums over its voxels.
//
//   TP = Σpt,  FP = Σp(1−t),  FN = Σ(1−p)t,   I = TP + s_n,   D = TP + αFP + βFN + s_d,
//   L = 1 − I/D.
//
// ∂TP/∂p = t,  ∂FP/∂p = 1−t,  ∂FN/∂p = −t, hence ∂D/∂p = α + (1−α−β)t and
//
//   ∂L/∂p = −t/D + (I/D²)(α + (1−α−β)t) = c₀ + c₁t.
//
// α = β = 1 is the soft Jaccard loss, α = β = ½ Dice (Salehi et al. 2017).
#pragma once

#include "math/sigmoid.h"

namespace ichfast::tversky {

enum Sum { kTP, kFP, kFN, kSums };

// p, 1 − p and ∂p/∂(argument) of a prediction that is p itself, or its logit.
template <bool kSigmoid, bool kCoarse = false, class T>
ICHFAST_HD Sigmoid<T> probability(T x) {
  if constexpr (kSigmoid) return whole_sigmoid<kCoarse>(x);
  return {x, T(1) - x, T(1)};
}

template <class T>
struct Parameters {
  T alpha, beta, smooth_nr, smooth_dr;
};

template <class T>
ICHFAST_HD T loss(const T* sums, const Parameters<T>& p) {
  const T intersection = sums[kTP] + p.smooth_nr;
  return T(1) - intersection / (sums[kTP] + p.alpha * sums[kFP] + p.beta * sums[kFN] + p.smooth_dr);
}

// ∂L/∂p = constant + slope·t, both already times the gradient that arrives at L.
template <class T>
struct Gradient {
  T constant, slope;
};

template <class T>
ICHFAST_HD Gradient<T> gradient(const T* sums, const Parameters<T>& p, T grad) {
  const T intersection = sums[kTP] + p.smooth_nr;
  const T d = sums[kTP] + p.alpha * sums[kFP] + p.beta * sums[kFN] + p.smooth_dr;
  const T inverse = T(1) / d, ratio = intersection * inverse;
  return {grad * p.alpha * ratio * inverse,
          grad * ((T(1) - p.alpha - p.beta) * ratio - T(1)) * inverse};
}

}  // namespace ichfast::tversky
