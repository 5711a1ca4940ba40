#include "python/denormals.h"

#include <cstdint>

#include "common/torch.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace ichfast {
namespace {

// The register that controls a thread's floating-point arithmetic, and its bits for the task.
#if defined(__x86_64__)
constexpr uint64_t kFlush = 0x8040;  // results (FTZ) and operands (DAZ)
uint64_t control() {
  return _mm_getcsr();
}
void set_control(uint64_t bits) {
  _mm_setcsr(uint32_t(bits));
}
#elif defined(__aarch64__)
constexpr uint64_t kFlush = 1 << 24;  // both (FZ)
uint64_t control() {
  uint64_t bits;
  asm volatile("mrs %0, fpcr" : "=r"(bits));
  return bits;
}
void set_control(uint64_t bits) {
  asm volatile("msr fpcr, %0" : : "r"(bits));
}
#else
constexpr uint64_t kFlush = 0;
uint64_t control() {
  return 0;
}
void set_control(uint64_t) {}
#endif

}  // namespace

bool flush_denormals(bool on, int threads) {
  const bool former = (control() & kFlush) != 0;
  // As many pieces of work as threads: OpenMP gives each of them one.
  torch::stable::parallel_for(0, threads, 1, [on](int64_t, int64_t) {
    set_control(on ? control() | kFlush : control() & ~kFlush);
  });
  return former;
}

}  // namespace ichfast
