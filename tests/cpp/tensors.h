// Tensors for the kernels' tests: any element type in any layout, filled from and read back as
// doubles; and comparison with an exact result.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "check.h"
#include "device.h"
#include "kernels/common/chunks.h"

namespace ichfast {

using Doubles = std::vector<double>;

enum class Layout {
  kContiguous,
  kChannelsLast,
  kMisaligned,   // contiguous, one element after an aligned address
  kHalfAligned,  // channels-last, four elements after one: 8 bytes of a half type
  kSpaced,       // every other voxel
  kPadded,       // rows and images with a gap of one vector, so that they stay aligned
};
constexpr Layout kLayouts[] = {Layout::kContiguous,  Layout::kChannelsLast, Layout::kMisaligned,
                               Layout::kHalfAligned, Layout::kSpaced,       Layout::kPadded};

// The next of a fixed sequence of numbers in [low, high).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 1) {}

  double operator()(double low, double high) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * double(state_ >> 11) * 0x1p-53;
  }

  Doubles several(int64_t n, double low, double high) {
    Doubles values(n);
    for (double& value : values) value = (*this)(low, high);
    return values;
  }

 private:
  uint64_t state_;
};

template <class T>
double to_double(T x) {
  return widen<double>(x);
}

template <class T>
T from_double(double x) {
  if constexpr (std::is_same_v<T, Bool>) {
    return {x != 0 ? uint8_t(0x82) : uint8_t(0)};  // true is any byte but 0
  } else if constexpr (std::is_integral_v<T>) {
    return T(x);
  } else {
    T result;
    narrow(x, &result);
    return result;
  }
}

template <class T>
class TestTensor {
 public:
  TestTensor(int64_t images, int64_t channels, int64_t voxels, Layout layout)
      : images_(images),
        channels_(channels),
        voxels_(voxels),
        offset_(layout == Layout::kMisaligned    ? 1
                : layout == Layout::kHalfAligned ? 4
                                                 : 0),
        strides_(strides_of(channels, voxels, layout)),
        memory_(sizeof(T) * (offset_ + extent())) {}

  // From values in the order (image, channel, voxel); what they became is values().
  TestTensor(int64_t images, int64_t channels, int64_t voxels, Layout layout, const Doubles& values)
      : TestTensor(images, channels, voxels, layout) {
    std::vector<unsigned char> bytes = memory_.read();
    int64_t next = 0;
    for_each([&](int64_t at) {
      const T element = from_double<T>(values[next++]);
      std::memcpy(&bytes[at * sizeof(T)], &element, sizeof(T));
    });
    memory_.write(bytes);
  }

  Doubles values() const {
    const std::vector<unsigned char> bytes = memory_.read();
    Doubles result;
    for_each([&](int64_t at) {
      T element;
      std::memcpy(&element, &bytes[at * sizeof(T)], sizeof(T));
      result.push_back(to_double(element));
    });
    return result;
  }

  // Whether what lies between the elements is as it was.
  bool gaps_untouched() const {
    std::vector<unsigned char> bytes = memory_.read();
    for_each([&](int64_t at) { std::memset(&bytes[at * sizeof(T)], Memory::kPoison, sizeof(T)); });
    return std::all_of(bytes.begin(), bytes.end(),
                       [](unsigned char byte) { return byte == Memory::kPoison; });
  }

  // As the kernel gets it: K is T, or a OneOf that T is among.
  template <class K = T>
  Input<K> input() const {
    return view<Input<K>, K>();
  }
  template <class K = T>
  Output<K> output() const {
    return view<Output<K>, K>();
  }

 private:
  static Strides strides_of(int64_t channels, int64_t voxels, Layout layout) {
    switch (layout) {
      case Layout::kChannelsLast:
      case Layout::kHalfAligned:
        return {channels * voxels, 1, channels};
      case Layout::kSpaced:
        return {2 * channels * voxels, 2 * voxels, 2};
      case Layout::kPadded:
        return {(channels * (voxels + 16) + 16), voxels + 16, 1};
      default:
        return {channels * voxels, voxels, 1};
    }
  }

  int64_t extent() const {
    if (images_ * channels_ * voxels_ == 0) return 0;
    return (images_ - 1) * strides_.image + (channels_ - 1) * strides_.channel +
           (voxels_ - 1) * strides_.voxel + 1;
  }

  template <class F>
  void for_each(const F& f) const {
    for (int64_t b = 0; b < images_; ++b)
      for (int64_t c = 0; c < channels_; ++c)
        for (int64_t i = 0; i < voxels_; ++i)
          f(offset_ + b * strides_.image + c * strides_.channel + i * strides_.voxel);
  }

  template <class V, class K>
  V view() const {
    unsigned char* const data = memory_.data() + offset_ * sizeof(T);
    if constexpr (std::is_same_v<K, T>) {
      return {reinterpret_cast<T*>(data), strides_};
    } else {
      return {data, strides_, kPosition<T, K>};
    }
  }

  int64_t images_, channels_, voxels_, offset_;
  Strides strides_;
  Memory memory_;
};

// A plain array that kernels write, and may read then.
template <class T>
class TestArray {
 public:
  explicit TestArray(int64_t n) : n_(n), memory_(n * sizeof(T), false) {}

  T* data() const { return reinterpret_cast<T*>(memory_.data()); }

  std::vector<T> values() const {
    const std::vector<unsigned char> bytes = memory_.read();
    std::vector<T> result(n_);
    if (n_ > 0) std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }

 private:
  int64_t n_;
  Memory memory_;
};

// All NaN count as one: which of its bits are set is up to the compiler.
inline bool same_bits(const Doubles& a, const Doubles& b) {
  const auto same = [](double x, double y) {
    return std::memcmp(&x, &y, sizeof x) == 0 || (std::isnan(x) && std::isnan(y));
  };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), same);
}

// How far an element computed in A and stored as T may lie from the exact one.
template <class A, class T>
constexpr double tolerance() {
  if constexpr (std::is_same_v<T, Half>) return 0x1p-10;
  if constexpr (std::is_same_v<T, BFloat16>) return 0x1p-7;
  return std::is_same_v<A, double> && std::is_same_v<T, double> ? 1e-12 : 4e-6;
}

// Relative to the element and to the root mean square of all, whichever is larger; NaN and ∞ where
// the exact ones are not finite either.
inline bool close(const Doubles& actual, const Doubles& exact, double relative) {
  double squares = 0;
  for (const double e : exact) squares += std::isfinite(e) ? e * e : 0;
  const double rms = exact.empty() ? 0 : std::sqrt(squares / double(exact.size()));
  if (actual.size() != exact.size()) return false;
  for (size_t i = 0; i < exact.size(); ++i) {
    if (std::isfinite(actual[i]) != std::isfinite(exact[i])) return false;
    if (std::isfinite(exact[i]) &&
        !(std::abs(actual[i] - exact[i]) <= relative * std::max(std::abs(exact[i]), rms)))
      return false;
  }
  return true;
}

// Voxels a row around the borders of vectors and chunks.
inline std::vector<int64_t> sizes() {
  constexpr int64_t kChunk = Chunking<4, Launch::kThreads>::kVoxels;
  return {0, 1, 3, 8, 63, 257, kChunk - 1, kChunk, kChunk + 5, 2 * kChunk + 8};
}

// Calls f; whether kernels moved most bytes in accesses of 16. On a GPU nobody counts.
template <class F>
bool moves_wide(const F& f) {
#if defined(__CUDACC__)
  f();
  return true;
#else
  host_sim::bytes = host_sim::wide_bytes = 0;
  f();
  return double(host_sim::wide_bytes) > 0.6 * double(host_sim::bytes);
#endif
}

inline int finish(const char* op, int cases) {
  std::printf("%s: %d cases, %d failed checks\n", op, cases, failures);
  return failures != 0;
}

}  // namespace ichfast
