// σ(x) = 1/(1+e^−x), σ′ = σ(1−σ); NaN comes through.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace ichfast {

// e^x = 2^k·e^r with k = round(x·log2 e) and |r| ≤ ½ ln 2; within 2 ulp for |x| ≤ 87.33, beyond
// which x counts as ±87.33 (e^x = 8e37 or 1e-38). The polynomial is the one of Moshier's Cephes
// library.
//
// The clamp and the NaN are done on the bits: written as comparisons of floats, GCC turns them into
// branches and the loops around stay scalar.
ICHFAST_HD float exponential(float x) {
#if defined(__CUDA_ARCH__)
  return ::expf(x);
#else
  constexpr int32_t kLimit = 0x42aeac50, kInfinity = 0x7f800000;  // the bits of 87.33654 and of ∞
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const int32_t magnitude = bits & 0x7fffffff;
  const int32_t nan = (kInfinity - magnitude) >> 31;  // all ones for NaN, else 0
  bits = (magnitude < kLimit ? magnitude : kLimit) | (bits & ~0x7fffffff);
  std::memcpy(&x, &bits, sizeof x);
  // Adding 1.5·2^23 leaves k in the low mantissa bits: no float-to-int conversion is needed.
  const float shifter = 12582912.0f;
  const float shifted = x * 1.44269504088896341f + shifter;
  const float k = shifted - shifter;
  const float r = x - k * 0.693359375f - k * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  uint32_t power_bits;
  std::memcpy(&power_bits, &shifted, sizeof power_bits);
  power_bits = (power_bits + 127u) << 23;  // the shifter's own bits fall out at the top: 2^k
  float power;
  std::memcpy(&power, &power_bits, sizeof power);
  const float value = p * power;
  std::memcpy(&bits, &value, sizeof bits);
  bits |= nan;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
#endif
}

ICHFAST_HD double exponential(double x) {
  return ::exp(x);
}

template <class T>
ICHFAST_HD T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

// dσ/dx from the value y = σ(x).
template <class T>
ICHFAST_HD T sigmoid_slope(T y) {
  return y * (T(1) - y);
}

}  // namespace ichfast
