// One value of batch normalisation with a ReLU, and of 2×2 max-pooling behind it:
//
//   z = (x − μ)·s + β,  s = γ/√(σ² + ε),   y = max(z, 0)
//
// With g the gradient of z, which is that of y where z > 0 and else 0, and x̂ = (x − μ)/√(σ² + ε):
//
//   ∂/∂β = Σg,   ∂/∂γ = Σg·x̂,   ∂/∂x = s·(g − (Σg + x̂·Σg·x̂)/n)
//
// over the n values of a channel, of which μ and σ² are; where they are constants, ∂/∂x = s·g.
#pragma once

#include <cmath>

#include "math/host_device.h"

namespace ichfast::norm_relu {

// 1/√(σ² + ε).
template <class T>
ICHFAST_HD T inverse_deviation(T variance, T eps) {
  return T(1) / std::sqrt(variance + eps);
}

template <class T>
ICHFAST_HD T normalised(T x, T mean, T scale, T bias) {
  return (x - mean) * scale + bias;
}

// NaN stays NaN, as in torch.
template <class T>
ICHFAST_HD T relu(T z) {
  return z <= T(0) ? T(0) : z;
}

// Of the gradient that arrives at relu(z), what goes on to z.
template <class T>
ICHFAST_HD T through_relu(T z, T grad) {
  return z <= T(0) ? T(0) : grad;
}

// ∂/∂x from g: s·g − shift − (x − μ)·slope.
template <class T>
struct Gradient {
  T shift, slope;
};

// From Σg and Σg·x̂.
template <class T>
ICHFAST_HD Gradient<T> gradient(T sum, T sum_with_x, T weight, T inverse, T count) {
  const T scale = weight * inverse;
  return {scale * sum / count, scale * inverse * sum_with_x / count};
}

// 1 where `other` takes the place of the largest so far, else 0: the first of equal values wins,
// and the last of several NaN, as in torch. A number and not a bool, of which GCC makes no vectors
// here.
template <class T>
ICHFAST_HD T beats(T other, T best) {
  const T wins = other > best ? T(1) : T(0);
  return other == other ? wins : T(1);
}

template <class T>
ICHFAST_HD T larger(T best, T other) {
  return beats(other, best) > T(0) ? other : best;
}

// The four values of a window, row by row.
template <class T>
struct Window {
  T a, b, c, d;
};

template <class T>
ICHFAST_HD T largest(const Window<T>& y) {
  return larger(larger(larger(y.a, y.b), y.c), y.d);
}

// The gradient of the largest, in its place; 0 in the others.
template <class T>
ICHFAST_HD Window<T> route(const Window<T>& y, T grad) {
  const T b = beats(y.b, y.a), of_two = larger(y.a, y.b);
  const T c = beats(y.c, of_two), of_three = larger(of_two, y.c);
  const T d = beats(y.d, of_three);
  const T not_d = d > T(0) ? T(0) : grad, not_c = c > T(0) ? T(0) : not_d;
  return {b > T(0) ? T(0) : not_c, b > T(0) ? not_c : T(0), c > T(0) ? not_d : T(0),
          d > T(0) ? grad : T(0)};
}

// Adds the mean of `more` values, and the sum of their squared distances from it, to those of
// `before` others (Chan, Golub and LeVeque 1979): nothing cancels, however large the mean.
template <class T>
struct Merge {
  T share, weight;

  ICHFAST_HD Merge(T before, T more) : share(more / (before + more)), weight(before * share) {}

  ICHFAST_HD void operator()(T more_mean, T more_squares, T& mean, T& squares) const {
    const T distance = more_mean - mean;
    mean += distance * share;
    squares += more_squares + distance * distance * weight;
  }
};

}  // namespace ichfast::norm_relu
