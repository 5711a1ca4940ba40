// Run-time choice of the vector instructions from a plain x86-64 build.
#pragma once

// The compiler emits one copy of the marked function per level and the dynamic loader picks the
// widest that the processor has. Elsewhere (Arm: NEON is always there) one copy is enough.
// Function templates cannot carry the attribute: mark a plain function that calls the template.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ICHFAST_SIMD_CLONES __GNUC__
#else
#define ICHFAST_SIMD_CLONES 0
#endif

#if ICHFAST_SIMD_CLONES >= 12
#define ICHFAST_SIMD \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#elif ICHFAST_SIMD_CLONES
// GCC 11 dispatches on one feature per copy. AVX-512F alone fuses multiply-add in its own vectors
// but not in the rest of a loop, so a result would depend on where it lies in memory; AVX2 alone
// fuses nowhere.
#define ICHFAST_SIMD __attribute__((target_clones("avx2", "default"), noinline))
#else
#define ICHFAST_SIMD __attribute__((noinline))
#endif

// For the templates that ICHFAST_SIMD functions are made of: each copy must contain their body.
#define ICHFAST_INLINE inline __attribute__((always_inline))
// The same behind a lambda's arguments.
#define ICHFAST_INLINE_LAMBDA __attribute__((always_inline))

namespace ichfast {

// The level that ICHFAST_SIMD functions run at on this machine.
inline const char* simd_level() {
#if ICHFAST_SIMD_CLONES
  __builtin_cpu_init();
#endif
#if ICHFAST_SIMD_CLONES >= 12
  if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4 (AVX-512)";
  if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3 (AVX2)";
  return "x86-64 (SSE2)";
#elif ICHFAST_SIMD_CLONES
  if (__builtin_cpu_supports("avx2")) return "AVX2 without FMA (built by GCC 11)";
  return "x86-64 (SSE2)";
#else
  return "as compiled";
#endif
}

}  // namespace ichfast
