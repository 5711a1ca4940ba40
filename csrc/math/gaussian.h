// The weights of a separable blur by a Gaussian of standard deviation σ pixels:
//
//   w_k = exp(−k²/2σ²) / Σ_m exp(−m²/2σ²),   |k|, |m| ≤ ⌈3σ⌉.
#pragma once

#include <cmath>

#include "math/host_device.h"

namespace ichfast {

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

// Σ_m of the formula above.
ICHFAST_HD double sum_of_weights(double sigma) {
  double sum = 1;
  for (int k = 1; k <= reach(sigma); ++k) sum += 2 * relative_weight(k, sigma);
  return sum;
}

}  // namespace ichfast
