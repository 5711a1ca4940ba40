// One sample of a training batch: a slice of the pool under an affine map, between its pixels.
//
// An output pixel (i, j) looks at the point (y, x) of the slice, both affine in i and j. What lies
// there is Σ hat(y − r) hat(x − c) h(r, c) over all pixels (r, c), with hat(t) = max(0, 1 − |t|):
// bilinear interpolation, of which at most four terms are not 0. Outside the slice is air. In h, as
// everywhere, HU are clipped first and windowed last (see math/ct_window.h).
#pragma once

#include "math/ct_window.h"

namespace ichfast::pool_batch {

// The map of a sample from output pixels to the slice's, from theta as torch's affine_grid has it
// with align_corners=False: there −1 and 1 are the outer edges of the first and the last pixel.
//
//   x̂ = (2j+1)/W′ − 1,   ŷ = (2i+1)/H′ − 1,   x = ((θ₀₀x̂ + θ₀₁ŷ + θ₀₂ + 1)W − 1)/2,   y likewise.
struct Map {
  double x_j, x_i, x_0;  // x = x_j·j + x_i·i + x_0
  double y_j, y_i, y_0;
};

// x_0, with the row of theta that makes x; y_0 likewise.
ICHFAST_HD double origin(const double* row, double per_i, double per_j, double side) {
  const double at = product(row[0], per_j - 1.0) + product(row[1], per_i - 1.0) + row[2];
  return (product(at + 1.0, side) - 1.0) * 0.5;
}

ICHFAST_HD Map map(const double* theta, int64_t height, int64_t width, int64_t out_height,
                   int64_t out_width) {
  const double h = double(height), w = double(width);
  const double per_j = 1.0 / double(out_width), per_i = 1.0 / double(out_height);
  const double* const x = theta;
  const double* const y = theta + 3;
  return {x[0] * per_j * w, x[1] * per_i * w, origin(x, per_i, per_j, w),
          y[0] * per_j * h, y[1] * per_i * h, origin(y, per_i, per_j, h)};
}

// Along one axis, where row i begins and where pixel j of a row lies.
ICHFAST_HD float row_start(double per_i, int64_t i, double start) {
  return float(product(per_i, double(i)) + start);
}
ICHFAST_HD float position(float per_j, int32_t j, float start) {
  return product(per_j, float(j)) + start;
}

// Two neighbouring pixels along one axis and what each weighs; pixels 0 … n−1, n ≥ 2. Where the
// point lies outside, the pair is at the border and its weights vanish as they should.
struct Taps {
  int32_t first;
  float weight_first, weight_second;
};

ICHFAST_HD float hat(float t) {
  const float weight = 1.0f - (t < 0.0f ? -t : t);
  return weight < 0.0f ? 0.0f : weight;  // NaN stays
}

ICHFAST_HD Taps taps(float at, int32_t n) {
  // Far outside, or nowhere: any border will do, and comparisons keep the conversion in range.
  const float last = float(n - 2);
  const float inside = at > 0.0f ? (at < last ? at : last) : 0.0f;
  const int32_t first = int32_t(inside);  // inside ≥ 0: truncation is the floor
  return {first, hat(at - float(first)), hat(at - float(first + 1))};
}

// The nearest pixel, ties to even as torch rounds; −1 outside.
ICHFAST_HD int32_t nearest(float at, int32_t n) {
  const float rounded = ::rintf(at);
  return rounded >= 0.0f && rounded < float(n) ? int32_t(rounded) : -1;
}

// h of the four pixels under a point → h there.
ICHFAST_HD float interpolate(const Taps& y, const Taps& x, float h00, float h01, float h10,
                             float h11) {
  const float air = ct_window::kAir;
  const float above = product(x.weight_first, h00 - air) + product(x.weight_second, h01 - air);
  const float below = product(x.weight_first, h10 - air) + product(x.weight_second, h11 - air);
  return product(y.weight_first, above) + product(y.weight_second, below) + air;
}

}  // namespace ichfast::pool_batch
