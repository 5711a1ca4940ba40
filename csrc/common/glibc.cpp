// In both libraries of ops, so that they run on each glibc that torch runs on, whatever the one at
// hand: the linker would bind these symbols to their newest version, which older systems lack.
#include <features.h>

#if defined(__GLIBC__)
#define ICHFAST_HIDDEN extern "C" __attribute__((visibility("hidden")))

// libstdc++ counts a shared_ptr's owners without atomics while the process has one thread, and asks
// glibc 2.32 or newer whether it has. This answer, no, holds for any glibc.
ICHFAST_HIDDEN char __libc_single_threaded;
char __libc_single_threaded = 0;

#if defined(__x86_64__)
// In 2.29 these got a second version, which differs in how it sets errno, and in nothing else. What
// says exp in this library means own_exp.
ICHFAST_HIDDEN double own_exp(double x) asm("exp");
ICHFAST_HIDDEN double own_log(double x) asm("log");
ICHFAST_HIDDEN double own_pow(double x, double y) asm("pow");
asm(".symver first_exp, exp@GLIBC_2.2.5");
asm(".symver first_log, log@GLIBC_2.2.5");
asm(".symver first_pow, pow@GLIBC_2.2.5");
extern "C" double first_exp(double x), first_log(double x), first_pow(double x, double y);

double own_exp(double x) {
  return first_exp(x);
}
double own_log(double x) {
  return first_log(x);
}
double own_pow(double x, double y) {
  return first_pow(x, y);
}
#endif

#endif
