// Several elements in one access of up to 16 bytes.
#pragma once

#include "common/elements.h"

namespace ichfast {

#if defined(__CUDACC__)
// What a kernel reads it never writes: through the read-only path, so that loads may be moved ahead
// of the stores of the step before.
template <class W>
ICHFAST_DEVICE W load_word(const void* at) {
  return __ldg(static_cast<const W*>(at));
}
template <class W>
ICHFAST_DEVICE void store_word(void* at, W word) {
  *static_cast<W*>(at) = word;
}
// Spelled out, since nvcc makes two stores of 8 bytes of some. It need not know that memory
// changes: nothing that is written is read again.
ICHFAST_DEVICE void store_word(void* at, uint4 word) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(at)), "r"(word.x), "r"(word.y), "r"(word.z),
                 "r"(word.w));
}
#endif  // else by the host simulation, which checks the alignment

template <int kBytes>
struct WordOf;
template <>
struct WordOf<16> {
  using type = uint4;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<4> {
  using type = uint32_t;
};
template <>
struct WordOf<2> {
  using type = uint16_t;
};
template <>
struct WordOf<1> {
  using type = uint8_t;
};

// How N elements of T are moved: in pieces of one access each.
template <class T, int N>
struct Pieces {
  static constexpr int kSize = N * sizeof(T) <= 16 ? N : int(16 / sizeof(T));
  static constexpr int kCount = N / kSize;
  static constexpr int kAlignment = kSize * sizeof(T);
  using Word = typename WordOf<kAlignment>::type;
};

template <int N, class T, class A>
ICHFAST_DEVICE void load_vector(const T* at, A* out) {
  using P = Pieces<T, N>;
#pragma unroll
  for (int p = 0; p < P::kCount; ++p) {
    const auto word = load_word<typename P::Word>(at + p * P::kSize);
    T elements[P::kSize];
    std::memcpy(elements, &word, sizeof word);
#pragma unroll
    for (int k = 0; k < P::kSize; ++k) out[p * P::kSize + k] = widen<A>(elements[k]);
  }
}

template <int N, class T, class A>
ICHFAST_DEVICE void store_vector(T* at, const A* values) {
  using P = Pieces<T, N>;
#pragma unroll
  for (int p = 0; p < P::kCount; ++p) {
    T elements[P::kSize];
#pragma unroll
    for (int k = 0; k < P::kSize; ++k) narrow(values[p * P::kSize + k], &elements[k]);
    typename P::Word word;
    std::memcpy(&word, elements, sizeof word);
    store_word(at + p * P::kSize, word);
  }
}

template <int N, class T>
ICHFAST_HD bool aligned(const T* at) {
  return reinterpret_cast<uintptr_t>(at) % Pieces<T, N>::kAlignment == 0;
}

}  // namespace ichfast
