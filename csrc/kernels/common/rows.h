// How kernels reach tensors: as rows of voxels, a row being one (image, channel).
//
// A row is read and written in steps: a step covers neighbouring voxels, in one access of 16 bytes
// where the address allows, else one by one. What a step covers never depends on that.
#pragma once

#include <type_traits>

#include "common/strides.h"
#include "kernels/common/vector.h"

namespace ichfast {

// One of several element types, which one being known at run time only: for mixtures of dtypes too
// rare for a kernel of their own. Always reached one by one.
template <class... T>
struct OneOf {};

using Floating = OneOf<float, double, Half, BFloat16>;
using Target = OneOf<Bool, uint8_t, float, double, Half, BFloat16>;
using Number = OneOf<float, double, Half, BFloat16, Bool, uint8_t, int8_t, uint16_t, int16_t,
                     int32_t, int64_t>;

// Where T stands in a OneOf.
template <class T, class List>
inline constexpr int kPosition = -1;
template <class T, class First, class... Rest>
inline constexpr int kPosition<T, OneOf<First, Rest...>> =
    std::is_same_v<T, First> ? 0 : 1 + kPosition<T, OneOf<Rest...>>;

// A tensor as a kernel gets it.
template <class T, bool kConst>
struct View {
  using Element = std::conditional_t<kConst, const T, T>;
  Element* data;
  Strides strides;

  // Calls f with the data as what they are.
  template <class F>
  ICHFAST_DEVICE void visit(const F& f) const {
    f(data);
  }
};
template <class... T, bool kConst>
struct View<OneOf<T...>, kConst> {
  std::conditional_t<kConst, const void, void>* data;
  Strides strides;
  int which;  // the position among T...

  template <class F>
  ICHFAST_DEVICE void visit(const F& f) const {
    int position = 0;
    (void)((position++ == which &&
            (f(static_cast<typename View<T, kConst>::Element*>(data)), true)) ||
           ...);
  }
};
template <class T>
using Input = View<T, true>;
template <class T>
using Output = View<T, false>;

// Voxels of a step: as many as make 16 bytes of the widest element.
template <class T>
inline constexpr int kVoxelsOf = 16 / sizeof(T);
template <class... T>
inline constexpr int kVoxelsOf<OneOf<T...>> = 1;

template <class First, class... Rest>
inline constexpr int kStepWidth =
    kVoxelsOf<First> < kStepWidth<Rest...> ? kVoxelsOf<First> : kStepWidth<Rest...>;
template <class First>
inline constexpr int kStepWidth<First> = kVoxelsOf<First>;

// Whether results kept in T are so coarse that coarse arithmetic does; of a OneOf not known.
template <class T>
inline constexpr bool kHalfType = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;

enum class Access {
  kScalar,       // one by one
  kVector,       // 16 bytes
  kInterleaved,  // 16 bytes, in which the two channels of a pair alternate: channels-last
};

template <Access kHow, int kVoxels>
struct Step {
  static constexpr Access kAccess = kHow;
  static constexpr int kWidth = kVoxels;
  int64_t voxel;  // the first one
};

template <class A, int N>
struct Values {
  A values[N];
  ICHFAST_DEVICE A& operator[](int k) { return values[k]; }
  ICHFAST_DEVICE A operator[](int k) const { return values[k]; }
};

// Whether N elements from `at` on can be one vector.
template <int N, class V>
ICHFAST_DEVICE bool allows_vector(const V& view, int64_t at) {
  if constexpr (N > 1) {
    return aligned<N>(view.data + at);
  } else {
    return false;
  }
}

// One (image, channel). `get` belongs to inputs, `put` to outputs.
template <class V>
class Row {
 public:
  ICHFAST_DEVICE Row(const V& view, int64_t offset) : view_(view), offset_(offset) {}
  ICHFAST_DEVICE Row(const V& view, int64_t image, int64_t channel)
      : Row(view, image * view.strides.image + channel * view.strides.channel) {}

  // Whether the step of N voxels at `voxel`, and so every one after it, can be reached so.
  template <int N>
  ICHFAST_DEVICE bool allows(Access, int64_t voxel) const {
    return view_.strides.voxel == 1 && allows_vector<N>(view_, offset_ + voxel);
  }

  template <class A, class S>
  ICHFAST_DEVICE Values<A, S::kWidth> get(S step) const {
    Values<A, S::kWidth> result = {};
    if constexpr (S::kAccess == Access::kScalar) {
      each(step, [&](auto* at, int k) { load_vector<1>(at, result.values + k); });
    } else {
      load_vector<S::kWidth>(view_.data + offset_ + step.voxel, result.values);
    }
    return result;
  }

  template <class A, class S>
  ICHFAST_DEVICE void put(S step, const Values<A, S::kWidth>& values) const {
    if constexpr (S::kAccess == Access::kScalar) {
      each(step, [&](auto* at, int k) { store_vector<1>(at, values.values + k); });
    } else {
      store_vector<S::kWidth>(view_.data + offset_ + step.voxel, values.values);
    }
  }

 private:
  template <class S, class F>
  ICHFAST_DEVICE void each(S step, const F& f) const {
    const int64_t stride = view_.strides.voxel, first = offset_ + step.voxel * stride;
    view_.visit([&](auto* data) {
#pragma unroll
      for (int k = 0; k < S::kWidth; ++k) f(data + first + k * stride, k);
    });
  }

  V view_;
  int64_t offset_;
};

template <class A, int N>
struct PairValues {
  Values<A, N> background, foreground;  // channels 0 and 1
};

// The two channels of an image together.
template <class V>
class RowPair {
 public:
  ICHFAST_DEVICE RowPair(const V& view, int64_t image)
      : view_(view),
        offset_(image * view.strides.image),
        background_(view, offset_),
        foreground_(view, offset_ + view.strides.channel) {}

  template <int N>
  ICHFAST_DEVICE bool allows(Access access, int64_t voxel) const {
    if (access == Access::kVector)
      return background_.template allows<N>(access, voxel) &&
             foreground_.template allows<N>(access, voxel);
    if constexpr (N > 1) {
      return view_.strides.voxel == 2 && view_.strides.channel == 1 &&
             allows_vector<2 * N>(view_, offset_ + 2 * voxel);
    } else {
      return false;
    }
  }

  template <class A, class S>
  ICHFAST_DEVICE PairValues<A, S::kWidth> get(S step) const {
    if constexpr (S::kAccess == Access::kInterleaved) {
      A both[2 * S::kWidth];
      load_vector<2 * S::kWidth>(view_.data + offset_ + 2 * step.voxel, both);
      PairValues<A, S::kWidth> result;
#pragma unroll
      for (int k = 0; k < S::kWidth; ++k) {
        result.background[k] = both[2 * k];
        result.foreground[k] = both[2 * k + 1];
      }
      return result;
    } else {
      return {background_.template get<A>(step), foreground_.template get<A>(step)};
    }
  }

  template <class A, class S>
  ICHFAST_DEVICE void put(S step, const PairValues<A, S::kWidth>& values) const {
    if constexpr (S::kAccess == Access::kInterleaved) {
      A both[2 * S::kWidth];
#pragma unroll
      for (int k = 0; k < S::kWidth; ++k) {
        both[2 * k] = values.background[k];
        both[2 * k + 1] = values.foreground[k];
      }
      store_vector<2 * S::kWidth>(view_.data + offset_ + 2 * step.voxel, both);
    } else {
      background_.put(step, values.background);
      foreground_.put(step, values.foreground);
    }
  }

 private:
  V view_;
  int64_t offset_;
  Row<V> background_, foreground_;
};

// One number of a (B,) or (B, C) tensor.
template <class A, class V>
ICHFAST_DEVICE A number(const V& view, int64_t image, int64_t channel = 0) {
  return Row(view, image, channel).template get<A>(Step<Access::kScalar, 1>{0})[0];
}

// The same of a (B,) tensor, or `otherwise` where there is none.
template <class A, class V>
ICHFAST_DEVICE A number_or(const V& view, int64_t image, A otherwise) {
  return view.data ? number<A>(view, image) : otherwise;
}

// How steps of N voxels from `voxel` on reach all of these rows and pairs.
template <int N, class... R>
ICHFAST_DEVICE Access common_access(int64_t voxel, const R&... rows) {
  if ((rows.template allows<N>(Access::kVector, voxel) && ...)) return Access::kVector;
  if ((rows.template allows<N>(Access::kInterleaved, voxel) && ...)) return Access::kInterleaved;
  return Access::kScalar;
}

}  // namespace ichfast
