// The end of the CUDA kernels whose results are windowed images.
#pragma once

#include "kernels/common/rows.h"
#include "math/ct_window.h"

namespace ichfast::ct_window {

struct LevelAndWidth {
  double level, width;
};

// The (B, K, H, W) result of which a kernel stores parts.
struct Planes {
  Output<Floating> images;
  int64_t windows, pixels;  // K, H·W
};

// Applies the windows of `image` to N neighbouring pixels and stores the first `count` of them, in
// vectors where the caller knows that all N are there and aligned. window_of(k) reads window k.
template <bool kNoNaN, int N, class A, class F>
ICHFAST_DEVICE void store_windows(const A (&h)[N], const F& window_of, Function function,
                                  bool invert, const Planes& result, int64_t image, int64_t pixel,
                                  int count, bool vector) {
  for (int64_t k = 0; k < result.windows; ++k) {
    const LevelAndWidth read = window_of(k);
    const A width = A(read.width);
    const Window<A> w = window(A(read.level), width, function, invert);
    A out[N];
    if (!valid_width(width, function) || !finite(w)) {  // nobody can look before
#pragma unroll
      for (int i = 0; i < N; ++i) out[i] = A(NAN);
    } else if (w.function == Function::kStep) {
#pragma unroll
      for (int i = 0; i < N; ++i) out[i] = step(h[i], w);
    } else if (w.function == Function::kSigmoid) {
#pragma unroll
      for (int i = 0; i < N; ++i) out[i] = sigmoidal(h[i], w);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) out[i] = linear<kNoNaN>(h[i], w);
    }
    const int64_t at = (image * result.windows + k) * result.pixels + pixel;
    result.images.visit([&](auto* data) {
      if (vector) {
        store_vector<N>(data + at, out);
      } else {
#pragma unroll
        for (int i = 0; i < N; ++i)
          if (i < count) store_vector<1>(data + at + i, out + i);
      }
    });
  }
}

}  // namespace ichfast::ct_window
