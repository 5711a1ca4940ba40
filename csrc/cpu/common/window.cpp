#include "cpu/common/unfused.h"

#include "cpu/common/window.h"

#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace ct_window;

template <bool kNoNaN, class A>
ICHFAST_INLINE void linear_row(const A* h, const Window<A> w, int64_t n, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = linear<kNoNaN>(h[i], w);
}

ICHFAST_SIMD void apply_linear(const float* h, const Window<float>& w, bool no_nan, int64_t n,
                               float* out) {
  no_nan ? linear_row<true>(h, w, n, out) : linear_row<false>(h, w, n, out);
}

void apply_linear(const double* h, const Window<double>& w, bool, int64_t n, double* out) {
  linear_row<false>(h, w, n, out);
}

template <class A>
ICHFAST_INLINE void step_row(const A* h, const Window<A> w, int64_t n, A* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = step(h[i], w);
}

ICHFAST_SIMD void apply_step(const float* h, const Window<float>& w, int64_t n, float* out) {
  step_row(h, w, n, out);
}

void apply_step(const double* h, const Window<double>& w, int64_t n, double* out) {
  step_row(h, w, n, out);
}

template <class A>
void apply(const A* h, const Window<A>& w, bool no_nan, int64_t n, A* out) {
  if (w.function == Function::kStep)
    apply_step(h, w, n, out);
  else if (w.function == Function::kSigmoid)
    apply_sigmoid(h, w, n, out);
  else
    apply_linear(h, w, no_nan, n, out);
}

}  // namespace

void apply_window(const float* h, const Window<float>& w, bool no_nan, int64_t n, float* out) {
  apply(h, w, no_nan, n, out);
}

void apply_window(const double* h, const Window<double>& w, bool no_nan, int64_t n, double* out) {
  apply(h, w, no_nan, n, out);
}

}  // namespace ichfast
