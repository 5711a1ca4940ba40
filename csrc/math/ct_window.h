// One sample of CT windowing: stored value → HU → [0, 1] (DICOM PS3.3 C.11.1 and C.11.2).
#pragma once

#include "math/sigmoid.h"

namespace ichfast::ct_window {

constexpr float kAir = -1000.0f;                       // HU of air, given to padding
constexpr float kMinHU = -1024.0f, kMaxHU = 3071.0f;  // the range of a 12-bit CT

enum class Function { kLinear, kLinearExact, kSigmoid };

// Comparisons are ordered so that NaN stays.
template <class T>
ICHFAST_HD T clip(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

template <class T>
ICHFAST_HD T hounsfield(T stored, T slope, T intercept) {
  return clip(stored * slope + intercept, T(kMinHU), T(kMaxHU));
}

// LINEAR        0 for x ≤ c−½−(w−1)/2, 1 for x > c−½+(w−1)/2, else (x−(c−½))/(w−1) + ½
// LINEAR_EXACT  0 for x ≤ c−w/2,       1 for x > c+w/2,       else (x−c)/w + ½
// SIGMOID       1/(1+exp(−4(x−c)/w))
//
// All three are a function of u = (x−centre)/span. LINEAR with w = 1 has span 0: u is ±∞ beside
// the centre, which the clip turns into 0 and 1, and x = centre is the one point to name.
template <class T>
struct Window {
  T centre, span;
  Function function;
  bool invert;
};

template <class T>
ICHFAST_HD Window<T> window(T level, T width, Function function, bool invert) {
  if (function == Function::kLinear) return {level - T(0.5), width - T(1), function, invert};
  return {level, function == Function::kSigmoid ? width / T(4) : width, function, invert};
}

template <class T>
ICHFAST_HD T linear(T hu, const Window<T>& w) {
  const T distance = hu - w.centre;
  const T u = distance == T(0) ? T(-0.5) * T(w.span == T(0)) : distance / w.span;
  const T y = clip(u + T(0.5), T(0), T(1));
  return w.invert ? T(1) - y : y;
}

template <class T>
ICHFAST_HD T sigmoidal(T hu, const Window<T>& w) {
  const T y = sigmoid((hu - w.centre) / w.span);
  return w.invert ? T(1) - y : y;
}

}  // namespace ichfast::ct_window
