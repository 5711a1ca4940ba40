// Marks the functions that the CPU kernels and the CUDA kernels share (HD), and those of the CUDA
// kernels, which the host simulation compiles as plain C++ (DEVICE).
#pragma once

#if defined(__CUDACC__)
#define ICHFAST_HD __host__ __device__ __forceinline__
#define ICHFAST_DEVICE __device__ __forceinline__
#else
// Forced: a loop compiled for AVX2 must not call a copy of the function compiled without it.
#define ICHFAST_HD inline __attribute__((always_inline))
#define ICHFAST_DEVICE inline
#endif
