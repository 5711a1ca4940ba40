// σ(x) = 1/(1+e^−x), σ′ = σ(1−σ), and what they and their logarithms are made of, without branches;
// NaN comes through.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "math/host_device.h"

namespace ichfast {

// e^x = 2^k·e^r with k = round(x·log2 e) and |r| ≤ ½ ln 2, for |x| ≤ 86.6; beyond, x counts as
// ±86.6 (e^x = 4e37 or 2e-38). The polynomial is the minimax one of degree 5 with p(0) = 1
// (relative error 9.2e-8); with rounding the result is within 3 ulp.
//
// Clamp, NaN and scaling are done on the bits: written as comparisons of floats, GCC turns them
// into branches and the loops around stay scalar; and integers cost half as many instructions.
ICHFAST_HD float exponential(float x) {
#if defined(__CUDA_ARCH__)
  return ::expf(x);
#else
  constexpr int32_t kMost = 0x42ad3333;    // the bits of 86.6
  constexpr uint32_t kLeast = 0xc2ad3333;  // of −86.6
  const int32_t nan = -int32_t(x != x);    // all ones for NaN, else 0
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  // As signed integers, positive floats keep their order and negative ones lie below them; as
  // unsigned integers, negative floats lie above, the larger the more negative.
  bits = bits < kMost ? bits : kMost;
  uint32_t clamped = uint32_t(bits);
  clamped = clamped < kLeast ? clamped : kLeast;
  std::memcpy(&x, &clamped, sizeof x);
  // Adding 1.5·2^23 leaves k in the low mantissa bits: no float-to-int conversion is needed.
  const float shifter = 12582912.0f;
  const float shifted = x * 1.44269504088896341f + shifter;
  const float k = shifted - shifter;
  const float r = x - k * 0.693359375f - k * -2.12194440e-4f;
  float p = 8.290297351777554e-3f;
  p = p * r + 4.189801961183548e-2f;
  p = p * r + 1.666763722896576e-1f;
  p = p * r + 4.999914765357971e-1f;
  p = p * r + 9.999997019767761e-1f;
  p = p * r + 1.0f;
  // p·2^k: k added to p's exponent; the shifter's own bits fall out at the top.
  uint32_t power, value;
  std::memcpy(&power, &shifted, sizeof power);
  std::memcpy(&value, &p, sizeof value);
  value = (value + (power << 23)) | uint32_t(nan);
  std::memcpy(&p, &value, sizeof p);
  return p;
#endif
}

ICHFAST_HD double exponential(double x) {
  return ::exp(x);
}

// e^x for results kept in a half type: on a GPU 2^(x·log2 e) of its special function unit, two
// instructions in place of eight. The product's rounding makes |x|·6e-8 of relative error, the unit
// 2e-7; below 2^-126 it gives 0.
template <bool kCoarse, class T>
ICHFAST_HD T exponential_to(T x) {
#if defined(__CUDA_ARCH__)
  if constexpr (kCoarse && sizeof(T) == sizeof(float)) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * 1.44269504088896341f));
    return result;
  }
#endif
  return exponential(x);
}

// 1/y for y ≥ 1. On a GPU the reciprocal of its special function unit, which is within 1 ulp (and 0
// from 2^126 on): IEEE's has a slow path, whose branches keep the loads of one voxel from
// overtaking the arithmetic of another.
ICHFAST_HD float reciprocal(float y) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(y));
  return result;
#else
  return 1.0f / y;
#endif
}

ICHFAST_HD double reciprocal(double y) {
  return 1.0 / y;
}

// log(1+e) for 0 ≤ e ≤ 1: e times the minimax polynomial of degree 8 for log(1+e)/e that is 1 at 0
// (relative error 3.3e-8; with rounding 2.0e-7). On GPUs as well: log1pf has branches for arguments
// that do not come here.
ICHFAST_HD float log1p_of_unit(float e) {
  float p = 5.364840384572744e-3f;
  p = p * e - 3.0065856873989105e-2f;
  p = p * e + 7.920464128255844e-2f;
  p = p * e - 1.375381052494049e-1f;
  p = p * e + 1.9153659045696259e-1f;
  p = p * e - 2.4857164919376373e-1f;
  p = p * e + 3.332132399082184e-1f;
  p = p * e - 4.9999648332595825e-1f;
  p = p * e + 1.0f;
  return p * e;
}

ICHFAST_HD double log1p_of_unit(double e) {
  return ::log1p(e);
}

// log x for 2^-126 ≤ x < ∞ (what is below counts as some number around −88; ∞ as 88.7). With
// x = 2^k·(1+f) and 1/√2 ≤ 1+f < √2, k log 2 is added to f + f² times the minimax polynomial of
// degree 7 for (log(1+f) − f)/f² (3.0e-8 of log(1+f); with rounding 1.1e-7 of log x, whose sign is
// that of x − 1). On GPUs as well, so that both devices differ by fused roundings alone.
ICHFAST_HD float logarithm(float x) {
  constexpr int32_t kLeast = 0x3f3504f3;  // the bits of 1/√2
  const int32_t nan = -int32_t(x != x);
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const int32_t power = (bits - kLeast) >> 23;
  bits -= int32_t(uint32_t(power) << 23);
  std::memcpy(&x, &bits, sizeof x);
  const float k = float(power), f = x - 1.0f;
  float p = 8.7348466280586577e-2f;
  p = p * f - 1.43075189045542e-1f;
  p = p * f + 1.4917970743602224e-1f;
  p = p * f - 1.6570508369139389e-1f;
  p = p * f + 1.9962072470564374e-1f;
  p = p * f - 2.5001755259210528e-1f;
  p = p * f + 3.3333950211907966e-1f;
  p = p * f - 4.9999991606468984e-1f;
  p = k * 0.693359375f + (f + (k * -2.12194440e-4f + f * f * p));
  std::memcpy(&bits, &p, sizeof bits);
  bits |= nan;
  std::memcpy(&p, &bits, sizeof p);
  return p;
}

ICHFAST_HD double logarithm(double x) {
  return ::log(x);
}

// `positive` where z > 0, `negative` where z < 0. Which of them for 0 and NaN depends on the
// device: there they should be equal, or both NaN. On the bits, as in `exponential` and for the
// same reason.
ICHFAST_HD float choose(float z, float positive, float negative) {
#if defined(__CUDA_ARCH__)
  return z < 0 ? negative : positive;
#else
  int32_t sign;
  uint32_t p, n;
  std::memcpy(&sign, &z, sizeof sign);
  std::memcpy(&p, &positive, sizeof p);
  std::memcpy(&n, &negative, sizeof n);
  p ^= (p ^ n) & uint32_t(sign >> 31);
  std::memcpy(&positive, &p, sizeof p);
  return positive;
#endif
}

ICHFAST_HD double choose(double z, double positive, double negative) {
  return z < 0 ? negative : positive;
}

template <class T>
ICHFAST_HD T sigmoid(T x) {
  return reciprocal(T(1) + exponential(-x));
}

// y = σ(x), 1 − y and dσ/dx = y(1−y), each to a few ulp of itself. Taken from y, 1 − y would lose
// all digits where x is large, and with it every gradient of a saturated mask. With e = e^−|x| and
// r = 1/(1+e), σ(|x|) = r, 1 − σ(|x|) = er, and the slope is er·r for either sign.
template <class T>
struct Sigmoid {
  T value, complement, slope;
};

// From e and r.
template <class T>
ICHFAST_HD Sigmoid<T> sigmoid_from(T x, T e, T r) {
  const T er = e * r;
  return {choose(x, r, er), choose(x, er, r), er * r};
}

// kCoarse: for results kept in a half type.
template <bool kCoarse = false, class T>
ICHFAST_HD Sigmoid<T> whole_sigmoid(T x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == sizeof(float)) {
    // The same without a choice, which takes a CPU longer: e^−x ≤ 4e37, so nothing overflows.
    const T e = exponential(-x), r = reciprocal(T(1) + e), er = e * r;
    return {r, er, er * r};
  }
#endif
  const T e = exponential_to<kCoarse>(-std::abs(x));
  return sigmoid_from(x, e, reciprocal(T(1) + e));
}

template <class T>
struct TwoSigmoids {
  Sigmoid<T> first, second;
};

// Of two numbers. In half types a GPU's special function unit, 16 results a clock, is what limits
// them: one reciprocal serves both, with a product of at most 4.
template <bool kCoarse = false, class T>
ICHFAST_HD TwoSigmoids<T> two_sigmoids(T x, T y) {
#if defined(__CUDA_ARCH__)
  if constexpr (kCoarse) {
    const T e_x = exponential_to<true>(-std::abs(x)), e_y = exponential_to<true>(-std::abs(y));
    const T a = T(1) + e_x, b = T(1) + e_y, r = reciprocal(a * b);
    return {sigmoid_from(x, e_x, r * b), sigmoid_from(y, e_y, r * a)};
  }
#endif
  return {whole_sigmoid<kCoarse>(x), whole_sigmoid<kCoarse>(y)};
}

}  // namespace ichfast
