// Rescaling and windows, in float and in double.
#include <algorithm>
#include <limits>

#include "check.h"
#include "math/ct_window.h"

namespace {

using namespace ichfast;

// The window in HU; both clips where there is no NaN.
template <class T>
T windowed(T hu, const ct_window::Window<T>& w) {
  const T h = hu + ct_window::kOffset;
  if (w.function == ct_window::Function::kStep) return step(h, w);
  if (w.function == ct_window::Function::kSigmoid) return sigmoidal(h, w);
  const T y = ct_window::linear<false>(h, w);
  if (!std::isnan(hu)) CHECK(y == ct_window::linear<true>(h, w));
  return y;
}

template <class T>
void test_ct_window() {
  using namespace ct_window;
  const T eps = std::numeric_limits<T>::epsilon();
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  for (const bool invert : {false, true}) {
    const auto check_at = [&](const Window<T>& w, double hu, double y, double tolerance) {
      CHECK_NEAR(windowed(T(hu), w), invert ? 1 - y : y, tolerance);
    };
    const auto brain = window(T(40), T(80), Function::kLinear, invert);
    for (const double hu : {-1024.0, -5.0, 0.0}) check_at(brain, hu, 0, 2 * eps);
    for (const double hu : {79.0, 80.0, 3071.0}) check_at(brain, hu, 1, 2 * eps);
    check_at(brain, 40, 0.5 + 0.5 / 79, 2 * eps);
    const auto step = window(T(40), T(1), Function::kLinear, invert);
    CHECK(step.function == Function::kStep);
    for (const double hu : {-1024.0, 39.0, 39.5}) check_at(step, hu, 0, 0);
    for (const double hu : {39.75, 40.0, 3071.0}) check_at(step, hu, 1, 0);
    const auto exact = window(T(40), T(80), Function::kLinearExact, invert);
    for (const double hu : {-50.0, 0.0, 20.0, 40.0, 75.0, 80.0, 90.0})
      check_at(exact, hu, std::clamp(hu / 80, 0.0, 1.0), 2 * eps);
    const auto soft = window(T(40), T(80), Function::kSigmoid, invert);
    for (const double hu : {-1000.0, 20.0, 40.0, 60.0, 3000.0})
      check_at(soft, hu, 1 / (1 + std::exp(-(hu - 40) / 20)), 4 * eps);
    for (const auto& w : {brain, step, exact, soft}) CHECK(std::isnan(windowed(nan, w)));
  }
  const T offset = T(kOffset);
  CHECK(rescale<false>(T(100), T(2), T(-24) + offset) == 176 + offset);
  for (const T stored : {T(-32768), T(-2000), T(0), T(5000), T(32767), infinity, -infinity}) {
    const T h = rescale<false>(stored, T(1), offset);
    CHECK(h == std::clamp(stored, T(-1024), T(3071)) + offset);
    CHECK(h == rescale<true>(stored, T(1), offset));
  }
  CHECK(std::isnan(rescale<false>(nan, T(1), offset)));
}

}  // namespace

int main() {
  test_ct_window<float>();
  test_ct_window<double>();
  return finish();
}
