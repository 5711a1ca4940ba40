// What the CPU kernels of the ops that end in a window share.
#pragma once

#include "common/torch.h"
#include "math/ct_window.h"

namespace ichfast {

// Windows n values; `no_nan` promises that there is no NaN among them.
void apply_window(const float* h, const ct_window::Window<float>& w, bool no_nan, int64_t n,
                  float* out);
void apply_window(const double* h, const ct_window::Window<double>& w, bool no_nan, int64_t n,
                  double* out);

// The same where the window's function is the sigmoid.
void apply_sigmoid(const float* h, const ct_window::Window<float>& w, int64_t n, float* out);
void apply_sigmoid(const double* h, const ct_window::Window<double>& w, int64_t n, double* out);

// A window from level and width, or the error of `op` that says what is wrong with them.
template <class A>
ct_window::Window<A> checked_window(const char* op, double level, double width,
                                    ct_window::Function function, bool invert) {
  STD_TORCH_CHECK(ct_window::valid_width(width, function), op,
                  ": a window's width must be positive, and at least 1 for 'linear'; got ", width);
  const auto w = ct_window::window(A(level), A(width), function, invert);
  STD_TORCH_CHECK(ct_window::finite(w), op,
                  ": a window's level must be finite and its width not tiny; got ", level, " and ",
                  width);
  return w;
}

}  // namespace ichfast
