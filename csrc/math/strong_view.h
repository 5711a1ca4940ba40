// One pixel of a strong view: a blurred image x in [0, 1] → clamp(x^γ + s·z), z ~ N(0, 1).
//
// z is a function of (seed of the image, pixel) and nothing else (counter-based, as Salmon et al.
// 2011 put it), so that it depends on no order, no number of threads and no neighbour in the batch.
// Two 32-bit hashes h and h′ of the pixel give, by Box and Muller (1958),
//
//   u = (2⌊h/2⁹⌋ + 1)/2²⁴,   v = ⌊h′/2⁸⌋/2²⁴ − ½,   z = √(−2 log u) · sin 2πv.
//
// Both are floats without rounding, so float32, float64 and every device have the same u and v;
// |z| reaches 5.77. Only the sine of a pair is used: the cosine would need a pixel for a partner.
//
// The blur's weights are w_d = exp(−d²/2σ²) / Σ, |d| ≤ ⌈3σ⌉.
#pragma once

#include "math/sigmoid.h"

namespace ichfast::strong_view {

constexpr double kMostBlur = 3.0;  // σ in pixels
constexpr int kMostRadius = 9;     // ⌈3σ⌉

// 32 bits that look random, from a pixel's number: two rounds of multiply and shift (the constants
// are those that C. Wellons found for the least bias), with a key before each, so that no two
// images' numbers are the same in another order.
struct Key {
  uint32_t before, between;
};

ICHFAST_HD uint32_t hash(uint32_t pixel, Key key) {
  uint32_t h = pixel ^ key.before;
  h = (h ^ (h >> 16)) * 0x7feb352du;
  h = (h ^ (h >> 15) ^ key.between) * 0x846ca68bu;
  return h ^ (h >> 16);
}

// Number i of the sequence that SplitMix64 (Steele, Lea, Flood 2014) makes of a seed.
ICHFAST_HD Key key(int64_t seed, uint64_t i) {
  uint64_t z = uint64_t(seed) + (i + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return {uint32_t(z), uint32_t(z >> 32)};
}

// What is the same for all pixels of an image.
template <class A>
struct View {
  A gamma, noise;
  Key radial, angular;
  int radius;                  // 0: not blurred
  A weights[kMostRadius + 1];  // of the pixels at these distances
};

// Without NaN, and nothing of which powers, sums or radii could not be taken.
ICHFAST_HD bool valid(double gamma, double blur, double noise) {
  constexpr double kMost = 3.4e38;  // a float's
  return gamma > 0 && gamma < kMost && blur >= 0 && blur <= kMostBlur && noise >= 0 &&
         noise < kMost;
}

template <class A>
ICHFAST_HD View<A> view(double gamma, double blur, double noise, int64_t seed) {
  View<A> result{A(gamma), A(noise), key(seed, 0), key(seed, 1), int(::ceil(3 * blur)), {A(1)}};
  double weights[kMostRadius + 1], sum = 1;
  for (int d = 1; d <= result.radius; ++d)
    sum += 2 * (weights[d] = ::exp(-0.5 * double(d * d) / (blur * blur)));
  if (result.radius > 0) result.weights[0] = A(1 / sum);
  for (int d = 1; d <= result.radius; ++d) result.weights[d] = A(weights[d] / sum);
  return result;
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

// sin 2πv for |v| ≤ ½, from sin πt for t = ½ − |½ − 2|v||, the same without the fold: t times the
// minimax polynomial of degree 4 in t² for sin(πt)/t on [0, ½] (relative error 5.3e-9).
ICHFAST_HD float sine_of_turn(float v) {
  const float twice = v + v, magnitude = std::abs(twice);
  const float t = 0.5f - std::abs(0.5f - magnitude), q = t * t;
  float p = 7.7560383929537171e-2f;
  p = p * q - 5.9824212510219002e-1f;
  p = p * q + 2.5500697261839776f;
  p = p * q - 5.1677096847970071f;
  p = p * q + 3.1415926368956022f;
  p *= t;
  return choose(v, p, -p);
}

ICHFAST_HD double sine_of_turn(double v) {
  return ::sin(6.283185307179586 * v);
}

template <class A>
ICHFAST_HD A normal(uint32_t pixel, const Key& radial, const Key& angular) {
  const int32_t odd = int32_t((hash(pixel, radial) >> 9) * 2 + 1);
  const int32_t turn = int32_t(hash(pixel, angular)) >> 8;  // 2²⁴(v), as its sign goes
  const A u = A(odd) * A(0x1p-24), v = A(turn) * A(0x1p-24);
  return std::sqrt(A(-2) * logarithm(u)) * sine_of_turn(v);
}

// kPower: γ is not 1; kNoise: s is not 0. Without both, x comes back as it is.
template <bool kPower, bool kNoise, class A>
ICHFAST_HD A pixel(A x, uint32_t index, const View<A>& view) {
  if constexpr (kPower) x = power(x, view.gamma);
  if constexpr (kNoise) x += view.noise * normal<A>(index, view.radial, view.angular);
  return kPower || kNoise ? to_unit(x) : x;
}

}  // namespace ichfast::strong_view
