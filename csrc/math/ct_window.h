// One sample of CT windowing: stored value → HU → [0, 1] (DICOM PS3.3 C.11.1 and C.11.2).
//
// In between HU are held as h = HU + 1024, the number that a 12-bit CT counts in, so that its range
// is [0, 4095] and clipping from below is a test of the sign.
#pragma once

#include "math/product.h"
#include "math/sigmoid.h"

namespace ichfast::ct_window {

constexpr float kOffset = 1024.0f;  // h − HU
constexpr float kMax = 4095.0f;     // 3071 HU
constexpr float kAir = 24.0f;       // −1000 HU, given to padding

// x clipped to [0, high]. NaN stays, unless the caller promises that there is none: then the clip
// is one integer maximum and one minimum on the bits, which order positive floats as their values.
// (GCC emits none for floats that may be NaN; in a loop of its own the clip took half the time so.)
template <bool kNoNaN>
ICHFAST_HD float clip(float x, float high) {
  if constexpr (!kNoNaN) {
    x = x < 0.0f ? 0.0f : x;
    return x > high ? high : x;
  } else {
#if defined(__CUDA_ARCH__)
    return fminf(fmaxf(x, 0.0f), high);
#endif
    int32_t bits, limit;
    std::memcpy(&bits, &x, sizeof bits);
    std::memcpy(&limit, &high, sizeof limit);
    bits = bits < 0 ? 0 : bits;
    bits = bits < limit ? bits : limit;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
}

template <bool kNoNaN>
ICHFAST_HD double clip(double x, double high) {
  x = x < 0.0 ? 0.0 : x;
  return x > high ? high : x;
}

// Output cell `index` of n_out covers input cells first … last−1 of n_in, and of those at its ends
// only a part: in units of 1/n_out it covers [index·n_in, (index+1)·n_in) and input cell j
// [j·n_out, (j+1)·n_out), all of it integers.
struct Cell {
  int64_t first, last;
};

ICHFAST_HD Cell cell(int64_t index, int64_t n_in, int64_t n_out) {
  return {index * n_in / n_out, ((index + 1) * n_in + n_out - 1) / n_out};
}

// The share of the output cell that input cell j is.
template <class T>
ICHFAST_HD T weight(int64_t j, int64_t index, int64_t n_in, int64_t n_out) {
  const int64_t from = j * n_out > index * n_in ? j * n_out : index * n_in;
  const int64_t j_end = (j + 1) * n_out, end = (index + 1) * n_in;
  return T((j_end < end ? j_end : end) - from) / T(n_in);
}

// stored → h: the caller has added kOffset to the intercept.
template <bool kNoNaN, class T>
ICHFAST_HD T rescale(T stored, T slope, T intercept) {
  return clip<kNoNaN>(product(stored, slope) + intercept, T(kMax));
}

enum class Function { kLinear, kLinearExact, kSigmoid, kStep };

// LINEAR        0 for x ≤ c−½−(w−1)/2, 1 for x > c−½+(w−1)/2, else (x−(c−½))/(w−1) + ½
// LINEAR_EXACT  0 for x ≤ c−w/2,       1 for x > c+w/2,       else (x−c)/w + ½
// SIGMOID       1/(1+exp(−4(x−c)/w))
//
// All are functions of u = (x − centre)·scale; LINEAR with w = 1 is a step at its centre. Inverting
// (y → 1−y) only turns the sign of u, but for the step.
template <class T>
struct Window {
  T centre, scale;
  Function function;
  bool invert;
};

template <class T>
ICHFAST_HD bool valid_width(T width, Function function) {
  return width > T(0) && (function != Function::kLinear || width >= T(1));
}

template <class T>
ICHFAST_HD Window<T> window(T level, T width, Function function, bool invert) {
  const T sign = invert ? T(-1) : T(1), offset = T(kOffset);
  if (function == Function::kSigmoid)
    return {level + offset, sign * T(4) / width, function, invert};
  if (function == Function::kLinearExact) return {level + offset, sign / width, function, invert};
  if (width == T(1)) return {level + offset - T(0.5), T(0), Function::kStep, invert};
  return {level + offset - T(0.5), sign / (width - T(1)), function, invert};
}

// The clip that takes NaN for absent relies on this.
template <class T>
ICHFAST_HD bool finite(const Window<T>& w) {
  return w.centre - w.centre == T(0) && w.scale - w.scale == T(0);
}

template <bool kNoNaN, class T>
ICHFAST_HD T linear(T h, const Window<T>& w) {
  return clip<kNoNaN>(product(h - w.centre, w.scale) + T(0.5), T(1));
}

template <class T>
ICHFAST_HD T sigmoidal(T h, const Window<T>& w) {
  return sigmoid((h - w.centre) * w.scale);
}

template <class T>
ICHFAST_HD T step(T h, const Window<T>& w) {
  const T distance = w.invert ? w.centre - h : h - w.centre;
  const T edge = w.invert ? T(1) : T(0);  // x = centre counts as below
  return distance > T(0) ? T(1) : distance < T(0) ? T(0) : distance == T(0) ? edge : distance;
}

}  // namespace ichfast::ct_window
