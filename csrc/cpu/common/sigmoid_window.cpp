// Apart from the other windows (window.cpp), since here products may be fused with sums: each
// device has an exponential of its own, so that the bits differ anyway.
#include "cpu/common/simd.h"
#include "cpu/common/window.h"

namespace ichfast {
namespace {

using namespace ct_window;

template <class A>
ICHFAST_INLINE void sigmoid_row(const A* h, const Window<A> w, int64_t n, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = sigmoidal(h[i], w);
}

ICHFAST_SIMD void apply(const float* h, const Window<float>& w, int64_t n, float* out) {
  sigmoid_row(h, w, n, out);
}

}  // namespace

void apply_sigmoid(const float* h, const Window<float>& w, int64_t n, float* out) {
  apply(h, w, n, out);
}

void apply_sigmoid(const double* h, const Window<double>& w, int64_t n, double* out) {
  sigmoid_row(h, w, n, out);
}

}  // namespace ichfast
