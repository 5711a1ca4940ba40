// Products whose sums have the same bits on every processor.
//
// Of a·b + c a compiler may make one instruction, which rounds once, or two, and which of them it
// takes is its own affair: it depends on the processor, on what else becomes of a·b, and on which
// of its copies of a line this is (nvcc fused some lanes of a vector and not others). `product` is
// always rounded by itself.
#pragma once

#include "math/host_device.h"

namespace ichfast {

// On a CPU no more than a·b: GCC fuses across functions, so that a file which promises these bits
// includes cpu/common/unfused.h. Clang fuses inside one expression alone.
ICHFAST_HD float product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

ICHFAST_HD double product(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

}  // namespace ichfast
