// One pixel of an image into which a region of another is pasted, and the weights of the blur that
// feathers the region's edges.
//
// r is 1 inside the region, where the image lies within the bounds, else 0. Blurred by a Gaussian
// it is a, and the pixel becomes x + a·(s − x), s being the other image's. The blur is separable:
//
//   a(i, j) = Σₖ wₖ Σₗ wₗ r(i+k, j+l),   wₖ = exp(−k²/2σ²) / Σₘ exp(−m²/2σ²),   |k|, |l|, |m| ≤
//   ⌈3σ⌉
//
// with r = 0 beyond the border. Where r does not change within reach, a is r but for rounding.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/host_device.h"

namespace ichfast::paste {

constexpr double kLargestSigma = 4;  // pixels
constexpr int kLargestReach = 12;    // 3 times that

ICHFAST_HD bool valid_sigma(double sigma) {
  return sigma >= 0 && sigma <= kLargestSigma;  // NaN is not
}

// How far the blur looks in each direction.
ICHFAST_HD int reach(double sigma) {
  return int(::ceil(3 * sigma));
}

// What a neighbour k pixels away weighs beside the pixel itself, which weighs 1. Divided before it
// is squared, so that no sigma gives 0 · ∞.
ICHFAST_HD double relative_weight(int k, double sigma) {
  const double t = double(k) / sigma;
  return k == 0 ? 1.0 : ::exp(-0.5 * t * t);
}

// Σₘ of the formula above.
ICHFAST_HD double sum_of_weights(double sigma) {
  double sum = 1;
  for (int k = 1; k <= reach(sigma); ++k) sum += 2 * relative_weight(k, sigma);
  return sum;
}

// NaN is within no bounds.
template <class A>
ICHFAST_HD bool chosen(bool inside, A image, A low, A high) {
  return inside & (image >= low) & (image <= high);
}

// Where a is 0 or 1 one of the two is as it was: a NaN of the other does not show. From rounding a
// may exceed 1.
template <class A>
ICHFAST_HD A mix(A image, A source, A a) {
  const A between = image + a * (source - image);
  return a > A(0) ? (a >= A(1) ? source : between) : image;
}

}  // namespace ichfast::paste
