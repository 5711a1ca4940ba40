// One pixel of a strong view: a blurred image x in [0, 1] → clamp(x^γ + s·z), z ~ N(0, 1).
//
// z is a function of (seed of the image, pixel) and nothing else (counter-based, as Salmon et al.
// 2011 put it), so that it depends on no order, no number of threads and no neighbour in the batch.
// Pixels 2k and 2k + 1 of a row are a pair. Two 32-bit hashes h and h′ of the first one's number
// give, by Box and Muller (1958),
//
//   u = (2⌊h/2⁹⌋ + 1)/2²⁴,   v = ⌊h′/2⁸⌋/2²⁴,   z = √(−2 log u) · (cos 2πv, sin 2πv),
//
// h′ with its sign, so that |v| ≤ ½. Both are floats without rounding: float32, float64 and every
// device have the same u and v. |z| reaches 5.77.
#pragma once

#include "math/gaussian.h"
#include "math/sigmoid.h"

namespace ichfast::strong_view {

constexpr double kMostBlur = 3.0;  // σ in pixels
constexpr int kMostReach = 9;      // 3 times that

// 32 bits that look random, from a pixel's number: three rounds of multiply and shift (C. Wellons's
// triple32) with a key before the first and the second, so that no two images have the same numbers
// in another order. With two rounds some pairs of pixels, always as far apart, were correlated.
struct Key {
  uint32_t first, second;
};

ICHFAST_HD uint32_t hash(uint32_t pixel, Key key) {
  uint32_t h = pixel ^ key.first;
  h = (h ^ (h >> 17)) * 0xed5ad4bbu;
  h = (h ^ (h >> 11) ^ key.second) * 0xac4c1b51u;
  h = (h ^ (h >> 15)) * 0x31848babu;
  return h ^ (h >> 14);
}

// Number i of the sequence that SplitMix64 (Steele, Lea, Flood 2014) makes of a seed.
ICHFAST_HD Key key(int64_t seed, uint64_t i) {
  uint64_t z = uint64_t(seed) + (i + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return {uint32_t(z), uint32_t(z >> 32)};
}

// What is the same for all pixels of an image, once it is blurred.
template <class A>
struct View {
  A gamma, noise;
  Key radial, angular;
};

template <class A>
ICHFAST_HD View<A> view(double gamma, double noise, int64_t seed) {
  return {A(gamma), A(noise), key(seed, 0), key(seed, 1)};
}

// No NaN, and nothing beyond a float's range.
ICHFAST_HD bool valid(double gamma, double blur, double noise) {
  constexpr double kMost = 3.4e38;  // a float's
  return gamma > 0 && gamma < kMost && blur >= 0 && blur <= kMostBlur && noise >= 0 &&
         noise < kMost;
}

// x clipped to [0, 1]; NaN stays.
template <class A>
ICHFAST_HD A to_unit(A x) {
  x = x < A(0) ? A(0) : x;
  return x > A(1) ? A(1) : x;
}

// x^γ for x in [0, 1]; 0 and 1 are themselves. On the bits, as in `exponential`.
ICHFAST_HD float power(float x, float gamma) {
  float result = exponential(gamma * logarithm(x));
  int32_t bits;
  std::memcpy(&bits, &result, sizeof bits);
  bits &= -int32_t(x != 0.0f);
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

ICHFAST_HD double power(double x, double gamma) {
  return ::pow(x, gamma);
}

// sin πt for |t| ≤ ½: t times the minimax polynomial of degree 4 in t² for sin(πt)/t (relative
// error 5.3e-9).
ICHFAST_HD float sine_of_half_turns(float t) {
  const float q = t * t;
  float p = 7.7560383929537171e-2f;
  p = p * q - 5.9824212510219002e-1f;
  p = p * q + 2.5500697261839776f;
  p = p * q - 5.1677096847970071f;
  p = p * q + 3.1415926368956022f;
  return p * t;
}

ICHFAST_HD double sine_of_half_turns(double t) {
#if defined(__CUDA_ARCH__)
  return ::sinpi(t);  // sin keeps an array for arguments that do not come here
#else
  return ::sin(3.141592653589793 * t);
#endif
}

template <class A>
struct Pair {
  A first, second;
};

// z of pixel `index` and of the next one, a pair.
template <class A>
ICHFAST_HD Pair<A> normal_pair(uint32_t index, const Key& radial, const Key& angular) {
  const int32_t odd = int32_t((hash(index, radial) >> 9) * 2 + 1);
  const int32_t turn = int32_t(hash(index, angular)) >> 8;
  const A r = std::sqrt(A(-2) * logarithm(A(odd) * A(0x1p-24)));
  // With h = 2|v|, cos πh = sin π(½ − h), and sin πh = sin π(½ − |½ − h|).
  const A v = A(turn) * A(0x1p-24), from_quarter = A(0.5) - std::abs(v + v);
  const A cosine = sine_of_half_turns(from_quarter);
  const A sine = sine_of_half_turns(A(0.5) - std::abs(from_quarter));
  return {r * cosine, r * choose(v, sine, -sine)};
}

// kPower: γ is not 1; kNoise: s is not 0. Without both, x comes back as it is.
template <bool kPower, bool kNoise, class A>
ICHFAST_HD A pixel(A x, A z, const View<A>& view) {
  if constexpr (kPower) x = power(x, view.gamma);
  if constexpr (kNoise) x += view.noise * z;
  return kPower || kNoise ? to_unit(x) : x;
}

}  // namespace ichfast::strong_view
