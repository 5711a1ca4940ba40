// What tensors are made of, for code that knows no torch.
#pragma once

#include <cstdint>
#include <cstring>

#include "math/host_device.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace ichfast {

// Storage only: arithmetic is done in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
struct Bool {
  uint8_t byte;  // any byte but 0 is true: a bool made elsewhere may hold another than 1
};

// bfloat16 is the upper half of a float32.
ICHFAST_HD float bfloat16_to_float(uint16_t x) {
  const uint32_t bits = uint32_t(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// To nearest even, as all conversions to a half type here.
ICHFAST_HD uint16_t float_to_bfloat16(float x) {
#if defined(__CUDA_ARCH__)
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  // Rounding would carry a NaN's mantissa into the sign; quiet it instead.
  return uint16_t(x != x ? (bits >> 16) | 0x40u : rounded);
#endif
}

ICHFAST_HD float half_to_float(uint16_t x) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(x));
#else
  // By scaling: shifted into a float32's fields the exponent is 112 too small, and one
  // multiplication by 2^112 mends normal and subnormal numbers alike.
  const uint32_t magnitude = uint32_t(x & 0x7fffu) << 13, sign = uint32_t(x & 0x8000u) << 16;
  float value;
  std::memcpy(&value, &magnitude, sizeof value);
  value *= 0x1p112f;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits |= sign | ((x & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u);  // ∞ and NaN keep their mantissa
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

ICHFAST_HD uint16_t float_to_half(float x) {
#if defined(__CUDA_ARCH__)
  return __half_as_ushort(__float2half_rn(x));
#else
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  // Normal: round the mantissa to 10 bits, re-bias. Subnormal: adding ½ (2^-1) aligns the value so
  // that the float adder itself rounds at 2^-24.
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  float tiny;
  std::memcpy(&tiny, &magnitude, sizeof tiny);
  tiny += 0.5f;
  uint32_t subnormal;
  std::memcpy(&subnormal, &tiny, sizeof subnormal);
  subnormal -= 0x3f000000u;
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;  // from 65520 on the nearest is ∞
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return uint16_t(sign | half);
#endif
}

// An element as the type that is computed in, float or double; and back.
template <class A, class T>
ICHFAST_HD A widen(T x) {
  return A(x);
}
template <class A>
ICHFAST_HD A widen(uint8_t x) {
#if defined(__CUDA_ARCH__)
  // 2^23 + x has x in its low bits. GPUs convert integers more slowly than they add.
  return A(__uint_as_float(0x4b000000u | x) - 8388608.0f);
#else
  return A(x);
#endif
}
template <class A>
ICHFAST_HD A widen(Half x) {
  return A(half_to_float(x.bits));
}
template <class A>
ICHFAST_HD A widen(BFloat16 x) {
  return A(bfloat16_to_float(x.bits));
}
template <class A>
ICHFAST_HD A widen(Bool x) {
  return A(x.byte != 0);
}

template <class A>
ICHFAST_HD void narrow(A x, float* to) {
  *to = float(x);
}
template <class A>
ICHFAST_HD void narrow(A x, double* to) {
  *to = double(x);
}
template <class A>
ICHFAST_HD void narrow(A x, Half* to) {
  to->bits = float_to_half(float(x));
}
template <class A>
ICHFAST_HD void narrow(A x, BFloat16* to) {
  to->bits = float_to_bfloat16(float(x));
}

}  // namespace ichfast
