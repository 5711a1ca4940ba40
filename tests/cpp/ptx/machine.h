// A machine for what translate.py makes of PTX: what its instructions compute, and a CUDA thread,
// through which it reaches memory and the other threads.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace ptx {

// ---- arithmetic

using int128_t = __int128;
using uint128_t = unsigned __int128;

inline bool is_unordered(float a, float b) {
  return std::isnan(a) || std::isnan(b);
}
inline bool is_unordered(double a, double b) {
  return std::isnan(a) || std::isnan(b);
}

template <class T>
T shift_left(T x, uint32_t count) {
  return count >= 8 * sizeof(T) ? T(0) : T(x << count);
}
template <class T>
T shift_right(T x, uint32_t count) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  return count < kBits ? T(x >> count) : std::is_signed_v<T> ? T(x >> (kBits - 1)) : T(0);
}

// Byte i of the result is that of a and b which nibble i of the selectors names: 0 … 3 are a's,
// 4 … 7 b's; with its top bit set, the sign of that byte eight times.
inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selectors) {
  const uint64_t both = uint64_t(b) << 32 | a;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t selector = selectors >> (4 * i);
    uint8_t byte = uint8_t(both >> (8 * (selector & 7u)));
    if (selector & 8u) byte = byte & 0x80u ? 0xff : 0;
    result |= uint32_t(byte) << (8 * i);
  }
  return result;
}

// Of NaN and a number, the number; −0 is below 0.
template <class T>
T minimum(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a == b) return std::signbit(a) ? a : b;
    if (std::isnan(a)) return b;
    if (std::isnan(b)) return a;
  }
  return a < b ? a : b;
}
template <class T>
T maximum(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a == b) return std::signbit(a) ? b : a;
    if (std::isnan(a)) return b;
    if (std::isnan(b)) return a;
  }
  return a > b ? a : b;
}

inline float saturate(float x) {
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;  // NaN becomes 0
}

// a·b + c, rounded towards −∞.
float fma_downward(float a, float b, float c);

// Truncated, and into the range of I. NaN becomes 0, or with 64 bits on either side the top bit.
template <class I, class F>
I to_integer(F x) {
  using Limits = std::numeric_limits<I>;
  if (std::isnan(x))
    return sizeof(I) == 8 || sizeof(F) == 8 ? I(uint64_t(1) << (8 * sizeof(I) - 1)) : I(0);
  const F beyond = std::ldexp(F(1), Limits::digits);  // the first number above the largest
  if (x >= beyond) return Limits::max();
  if (x <= F(Limits::min())) return Limits::min();
  return I(x);
}

float half_to_float(uint16_t x);
uint16_t float_to_half(float x);
inline float bfloat16_to_float(uint16_t x) {
  return std::bit_cast<float>(uint32_t(x) << 16);
}
uint16_t float_to_bfloat16(float x);

// The hardware's approximations: the nearest float, or as far from it as the PTX ISA allows
// (PTX_APPROXIMATIONS, see machine.cpp). Subnormal numbers are flushed to zero.
float approximate_reciprocal(float x);
float approximate_exp2(float x);
double approximate_reciprocal(double x);

// ---- a thread

// An instruction that can go wrong.
struct Site {
  const char* instruction;
  const char* source;
};

enum class State { kRunning, kAtBarrier, kAtShuffle, kDone };

struct Thread {
  uint32_t id, block, threads, blocks;  // of the block, of the grid
  State state;
  int site;  // of the barrier or the shuffle where it waits
  struct {
    uint32_t value, lanes;
    bool is_inside;
  } shuffled;

  template <class E, int N>
  void load_global(uint64_t at, E (&to)[N], int site) {
    check_global_load(at, sizeof to, site);
    std::memcpy(to, reinterpret_cast<const void*>(at), sizeof to);
  }
  template <class E, int N>
  void store_global(uint64_t at, const E (&from)[N], int site) {
    check_global_store(at, sizeof from, site);
    std::memcpy(reinterpret_cast<void*>(at), from, sizeof from);
  }
  template <class E, int N>
  void load_shared(uint64_t at, E (&to)[N], int site) {
    std::memcpy(to, check_shared_load(at, sizeof to, site), sizeof to);
  }
  template <class E, int N>
  void store_shared(uint64_t at, const E (&from)[N], int site) {
    std::memcpy(check_shared_store(at, sizeof from, site), from, sizeof from);
  }

  void wait_at_barrier(int site);
  uint32_t shuffle_down(uint32_t value, uint32_t lanes, uint32_t clamp, uint32_t members,
                        bool& is_inside, int site);

  template <class T>
  T quotient(T a, T b, int site) {
    check_division(b == 0, site);
    return a / b;
  }
  template <class T>
  T remainder(T a, T b, int site) {
    check_division(b == 0, site);
    return a % b;
  }

 private:
  void check_global_load(uint64_t at, uint32_t size, int site);
  void check_global_store(uint64_t at, uint32_t size, int site);
  const uint8_t* check_shared_load(uint64_t at, uint32_t size, int site);
  uint8_t* check_shared_store(uint64_t at, uint32_t size, int site);
  void check_division(bool by_zero, int site);
};

// ---- kernels

struct Kernel {
  void (*run)(const uint8_t* parameters, Thread& thread);
  const Site* sites;
  uint32_t shared_size;  // bytes
  uint32_t most_threads;
  bool meets;                                             // has barriers or shuffles
  std::vector<std::pair<uint32_t, uint32_t>> parameters;  // offset and size in bytes
};

void add_kernel(const char* name, Kernel kernel);

// Data of a module that kernels may read.
void add_constant(const void* data, size_t size);

// ---- what the launching side says

// Memory that kernels may reach until the next forget_areas.
void add_area(const void* data, size_t size, bool writable);

// The same, which holds nothing yet.
void add_unwritten(void* data, size_t size);
void forget_areas();

// Runs a grid; says what went wrong, or nothing.
std::string launch(const std::string& kernel, uint32_t blocks, uint32_t threads, void** arguments);

}  // namespace ptx
