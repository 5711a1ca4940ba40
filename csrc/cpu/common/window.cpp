#include "cpu/common/window.h"

#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace ct_window;

template <bool kNoNaN, class A>
ICHFAST_INLINE void window_row(const A* h, const Window<A> w, int64_t n, A* out) {
  switch (w.function) {
    case Function::kStep:
      for (int64_t i = 0; i < n; ++i) out[i] = step(h[i], w);
      break;
    case Function::kSigmoid:
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) out[i] = sigmoidal(h[i], w);
      break;
    default:
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) out[i] = linear<kNoNaN>(h[i], w);
  }
}

ICHFAST_SIMD void apply(const float* h, const Window<float>& w, bool no_nan, int64_t n,
                        float* out) {
  no_nan ? window_row<true>(h, w, n, out) : window_row<false>(h, w, n, out);
}

}  // namespace

void apply_window(const float* h, const Window<float>& w, bool no_nan, int64_t n, float* out) {
  apply(h, w, no_nan, n, out);
}

void apply_window(const double* h, const Window<double>& w, bool, int64_t n, double* out) {
  window_row<false>(h, w, n, out);
}

}  // namespace ichfast
