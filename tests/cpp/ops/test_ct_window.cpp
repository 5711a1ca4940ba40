// The math of ct_window against DICOM's formulas; its kernels against the math in float64.
#include <algorithm>
#include <limits>

#include "kernels/ct_window.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::ct_window;

int cases = 0;

// Row by row and column by column, as in the definition of the average.
Doubles exact(const Doubles& stored, const Doubles& slope, const Doubles& intercept,
              const Doubles& windows, const Shape& s, const Options& options) {
  Doubles result;
  for (int64_t b = 0; b < s.images; ++b) {
    for (int64_t k = 0; k < s.windows; ++k) {
      const auto w = window(windows[2 * k], windows[2 * k + 1], options.function, options.invert);
      for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
        const int64_t y = pixel / s.out_width, x = pixel % s.out_width;
        const Cell rows = cell(y, s.height, s.out_height), columns = cell(x, s.width, s.out_width);
        double h = 0;
        for (int64_t i = rows.first; i < rows.last; ++i) {
          for (int64_t j = columns.first; j < columns.last; ++j) {
            const double value = stored[(b * s.height + i) * s.width + j];
            const double share = weight<double>(i, y, s.height, s.out_height) *
                                 weight<double>(j, x, s.width, s.out_width);
            h += share * (options.has_padding && value == options.padding
                              ? kAir
                              : rescale<false>(value, slope[b], intercept[b] + kOffset));
          }
        }
        if (!valid_width(windows[2 * k + 1], options.function) || !finite(w))
          result.push_back(std::numeric_limits<double>::quiet_NaN());
        else if (w.function == Function::kStep)
          result.push_back(step(h, w));
        else if (w.function == Function::kSigmoid)
          result.push_back(sigmoidal(h, w));
        else
          result.push_back(linear<false>(h, w));
      }
    }
  }
  return result;
}

// A computes; T is stored, O the result's. With `spoil` the second slope is NaN.
template <class A, class T, class O>
void run(Shape shape, Options options, Layout layout, double least_width = 30, bool spoil = false) {
  ++cases;
  Random random(uint64_t(shape.width) + 17);
  const int64_t images = shape.images, pixels = images * shape.height * shape.width;
  Doubles values = sizeof(T) == 1 ? random.several(pixels, 0, 120)
                                  : random.several(pixels, std::is_unsigned_v<T> ? 0 : -1200, 3500);
  for (int64_t i = 0; i < pixels; ++i)
    if (i % 3 == 0) values[i] = double(int64_t(values[i]) % 90);  // where the windows are
  for (int64_t i = 0; i < pixels; i += 11) values[i] = 7;         // the padding
  Doubles slope = random.several(images, 1, 1.3), intercept = random.several(images, -30, 0);
  if (spoil) slope[1] = std::numeric_limits<double>::quiet_NaN();
  const Doubles windows{40, 80, 600, 2800, 30, least_width};
  shape.windows = 3;
  // Rows of an image are the tensor's channels.
  const TestTensor<T> stored(images, shape.height, shape.width, layout, values);
  const TestTensor<float> slopes(images, 1, 1, Layout::kSpaced, slope);
  const TestTensor<double> intercepts(images, 1, 1, Layout::kContiguous, intercept);
  const TestTensor<Half> levels(shape.windows, 2, 1, Layout::kSpaced, windows);
  const Doubles expected =
      exact(stored.values(), slopes.values(), intercepts.values(), levels.values(), shape, options);
  const TestTensor<O> result(images, shape.windows, shape.out_pixels(), Layout::kContiguous);
  forward<A>(Launch(), stored.template input<Number>(), slopes.template input<Number>(),
             intercepts.template input<Number>(), levels.template input<Number>(), shape, options,
             result.template output<Floating>());
  // A window of width w magnifies the rounding of its input, up to 4095, by 1/w.
  const double rounding = std::is_same_v<A, double> ? 1e-14 : 4e-7;
  const double allowed = 4095 * rounding / 30 + tolerance<A, O>();
  const Doubles actual = result.values();
  bool near = actual.size() == expected.size();
  for (size_t i = 0; near && i < actual.size(); ++i)
    near = std::isnan(expected[i]) ? std::isnan(actual[i])
                                   : std::abs(actual[i] - expected[i]) <= allowed;
  CHECK(near);
}

constexpr Options kPlain{Function::kLinear, false, false, 0};

template <class A, class T, class O = float>
void test() {
  const std::vector<Shape> shapes{
      {2, 32, 64, 0, 16, 32},  // halves, in vectors
      {2, 16, 32, 0, 16, 32},  // the same size, in vectors
      {2, 30, 34, 0, 15, 17},  // halves, one by one
      {2, 16, 40, 0, 8, 20},   // the same, for its width alone
      {2, 13, 17, 0, 7, 5},   {2, 5, 5, 0, 7, 7}, {1, 1, 1, 0, 3, 2}, {0, 32, 64, 0, 16, 32},
  };
  for (const Shape& shape : shapes) {
    run<A, T, O>(shape, kPlain, Layout::kContiguous);
    for (const Layout layout : kLayouts) run<A, T, O>(shape, kPlain, layout);
    for (const Function function :
         {Function::kLinear, Function::kLinearExact, Function::kSigmoid}) {
      run<A, T, O>(shape, {function, false, true, 7}, Layout::kContiguous);
      run<A, T, O>(shape, {function, true, false, 0}, Layout::kContiguous);
    }
    run<A, T, O>(shape, kPlain, Layout::kContiguous, 0.5);  // a width too small
    if (shape.images > 1) run<A, T, O>(shape, kPlain, Layout::kContiguous, 30, true);
  }
}

void test_wide() {
  const auto halve = [] {
    run<float, int16_t, BFloat16>({2, 64, 64, 0, 32, 32}, kPlain, Layout::kContiguous);
  };
  const auto keep = [] {
    run<float, uint16_t, Half>({2, 32, 64, 0, 32, 64}, kPlain, Layout::kContiguous);
  };
  CHECK(moves_wide(halve));
  CHECK(moves_wide(keep));
}

// The window in HU; both clips where there is no NaN.
template <class T>
T windowed(T hu, const Window<T>& w) {
  const T h = hu + kOffset;
  if (w.function == Function::kStep) return step(h, w);
  if (w.function == Function::kSigmoid) return sigmoidal(h, w);
  const T y = linear<false>(h, w);
  if (!std::isnan(hu)) CHECK(y == linear<true>(h, w));
  return y;
}

template <class T>
void test_math() {
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
  test_math<float>();
  test_math<double>();
  test<float, int16_t>();
  test<float, int16_t, BFloat16>();
  test<float, uint16_t, Half>();
  test<float, float>();
  test<float, uint8_t, double>();
  test<double, int32_t>();
  test<double, double, double>();
  test_wide();
  return finish("ct_window", cases);
}
