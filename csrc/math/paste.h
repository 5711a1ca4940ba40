// One pixel of an image into which a region of another is pasted.
//
// r is 1 inside the region, where the image lies within the bounds, else 0. Blurred by a Gaussian
// it is a, and the pixel becomes x + a·(s − x), s being the other image's. The blur is separable:
//
//   a(i, j) = Σₖ wₖ Σₗ wₗ r(i+k, j+l)   with the weights of math/gaussian.h
//
// and r = 0 beyond the border. Where r does not change within reach, a is r but for rounding.
#pragma once

#include <cstdint>

#include "math/gaussian.h"

namespace ichfast::paste {

constexpr double kLargestSigma = 4;  // pixels
constexpr int kLargestReach = 12;    // 3 times that

ICHFAST_HD bool valid_sigma(double sigma) {
  return sigma >= 0 && sigma <= kLargestSigma;  // NaN is not
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
