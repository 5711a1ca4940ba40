// The math of pool_batch against its formulas; its kernel against the math in float64, and against
// plain copies where the map is a shift or a mirror.
#include <initializer_list>
#include <limits>

#include "kernels/pool_batch.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::pool_batch;

int cases = 0;

// h of a slice at a point, by the definition: the sum over all pixels.
double at_point(const double* stored, const Shape& s, double slope, double intercept, double y,
                double x) {
  double h = ct_window::kAir;
  for (int64_t r = 0; r < s.height; ++r) {
    for (int64_t c = 0; c < s.width; ++c) {
      const double weight =
          std::max(0.0, 1 - std::abs(y - double(r))) * std::max(0.0, 1 - std::abs(x - double(c)));
      if (weight == 0) continue;
      const double value =
          ct_window::rescale<false>(stored[r * s.width + c], slope, intercept + ct_window::kOffset);
      h += weight * (value - ct_window::kAir);
    }
  }
  return h;
}

template <class O>
void run(Shape s, ct_window::Function function, const Doubles& theta, bool with_masks) {
  ++cases;
  Random random(uint64_t(s.out_width) + 29);
  const int64_t pixels = s.height * s.width;
  const TestTensor<int16_t> pool(s.pool, 1, pixels, Layout::kContiguous,
                                 random.several(s.pool * pixels, -200, 300));
  Doubles mask_values = random.several(s.pool * pixels, 0, 1);
  for (double& m : mask_values) m = m < 0.3 ? 200 : 0;
  const TestTensor<uint8_t> masks(s.pool, 1, pixels, Layout::kContiguous, mask_values);
  // The last index is outside the pool.
  Doubles index_values(s.batch);
  for (int64_t b = 0; b < s.batch; ++b) index_values[b] = double(b % s.pool);
  index_values.back() = double(s.pool);
  const TestTensor<int64_t> indices(s.batch, 1, 1, Layout::kSpaced, index_values);
  const TestTensor<float> matrices(s.batch, 2, 3, Layout::kContiguous, theta);
  const TestTensor<float> slopes(s.batch, 1, 1, Layout::kContiguous,
                                 random.several(s.batch, 1, 1.2));
  const TestTensor<double> intercepts(s.batch, 1, 1, Layout::kSpaced,
                                      random.several(s.batch, -20, 20));
  s.windows = 2;
  Doubles window_values;
  for (int64_t b = 0; b < s.batch; ++b)
    for (const double number : {40.0, 80.0 + double(b), 60.0, 200.0})
      window_values.push_back(number);
  const TestTensor<float> windows(s.batch, s.windows, 2, Layout::kContiguous, window_values);
  const TestTensor<O> images(s.batch, s.windows, s.out_pixels(), Layout::kContiguous);
  const TestTensor<uint8_t> masks_out(s.batch, 1, s.out_pixels(), Layout::kContiguous);

  forward(Launch(), pool.input().data, with_masks ? masks.input().data : nullptr,
          indices.input().data, indices.input().strides.image, matrices.template input<Number>(),
          slopes.template input<Number>(), intercepts.template input<Number>(),
          windows.template input<Number>(), s, function, images.template output<Floating>(),
          with_masks ? masks_out.output().data : nullptr);

  const Doubles stored = pool.values(), slope = slopes.values(), intercept = intercepts.values();
  const Doubles matrix = matrices.values(), actual = images.values(), chosen = masks_out.values();
  bool near = true, right = true;
  for (int64_t b = 0; b < s.batch; ++b) {
    const Map m = map(&matrix[6 * b], s.height, s.width, s.out_height, s.out_width);
    const bool outside = index_values[b] >= double(s.pool);
    const double* const slice = &stored[outside ? 0 : int64_t(index_values[b]) * pixels];
    for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
      const double i = double(pixel / s.out_width), j = double(pixel % s.out_width);
      const double x = m.x_j * j + m.x_i * i + m.x_0, y = m.y_j * j + m.y_i * i + m.y_0;
      const double h = at_point(slice, s, slope[b], intercept[b], y, x);
      for (int64_t k = 0; k < s.windows; ++k) {
        const auto w =
            ct_window::window(window_values[(b * s.windows + k) * 2],
                              window_values[(b * s.windows + k) * 2 + 1], function, false);
        const double expected = function == ct_window::Function::kSigmoid
                                    ? ct_window::sigmoidal(h, w)
                                    : ct_window::linear<false>(h, w);
        const double is = actual[(b * s.windows + k) * s.out_pixels() + pixel];
        // Positions are float: 2e-6 of a pixel here, times a step of some 500 HU, over the width.
        near &= outside ? std::isnan(is) : std::abs(is - expected) <= 5e-5 + tolerance<float, O>();
      }
      const double row = std::nearbyint(y), column = std::nearbyint(x);
      const bool tie =
          std::abs(std::abs(y - row) - 0.5) < 1e-5 || std::abs(std::abs(x - column) - 0.5) < 1e-5;
      const bool inside =
          row >= 0 && row < double(s.height) && column >= 0 && column < double(s.width);
      const bool expected =
          !outside && inside &&
          mask_values[int64_t(index_values[b]) * pixels + int64_t(row) * s.width + int64_t(column)];
      if (with_masks && !tie) right &= (chosen[b * s.out_pixels() + pixel] == 1) == expected;
    }
  }
  CHECK(near);
  CHECK(right);
  if (with_masks) {
    CHECK(std::all_of(chosen.begin(), chosen.end(), [](double m) { return m == 0 || m == 1; }));
  }
}

template <class O>
void test() {
  const Doubles still{1, 0, 0, 0, 1, 0}, mirrored{-1, 0, 0, 0, 1, 0},
      turned{0.9, -0.4, 0.1, 0.5, 0.8, -0.2}, far{1, 0, 40, 0, 1, -1e30};
  Doubles theta;
  for (const Doubles& one : {still, mirrored, turned, far, turned})
    theta.insert(theta.end(), one.begin(), one.end());
  for (const Shape& shape : {Shape{3, 5, 16, 16, 0, 16, 16}, Shape{2, 5, 13, 17, 0, 9, 11},
                             Shape{2, 5, 2, 2, 0, 3, 2}}) {
    run<O>(shape, ct_window::Function::kLinear, theta, true);
    run<O>(shape, ct_window::Function::kSigmoid, theta, false);
  }
}

constexpr float kQuietNaNf = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinityf = std::numeric_limits<float>::infinity();

// By the formula above Map, term by term, and by what an identity, a mirror and a shift must do.
void test_map() {
  const double theta[6] = {0.9, -0.3, 0.2, 0.4, 1.1, -0.5};
  const int64_t height = 37, width = 41, out_height = 20, out_width = 64;
  const Map m = map(theta, height, width, out_height, out_width);
  for (int64_t i = 0; i < out_height; i += 3) {
    for (int64_t j = 0; j < out_width; j += 5) {
      const double x_hat = double(2 * j + 1) / double(out_width) - 1;
      const double y_hat = double(2 * i + 1) / double(out_height) - 1;
      const double x = ((theta[0] * x_hat + theta[1] * y_hat + theta[2] + 1) * width - 1) / 2;
      const double y = ((theta[3] * x_hat + theta[4] * y_hat + theta[5] + 1) * height - 1) / 2;
      CHECK_NEAR(m.x_j * double(j) + m.x_i * double(i) + m.x_0, x, 1e-12);
      CHECK_NEAR(m.y_j * double(j) + m.y_i * double(i) + m.y_0, y, 1e-12);
    }
  }
  const double identity[6] = {1, 0, 0, 0, 1, 0};
  const Map same = map(identity, 32, 64, 32, 64);
  CHECK(same.x_j == 1 && same.x_i == 0 && same.x_0 == 0);
  CHECK(same.y_j == 0 && same.y_i == 1 && same.y_0 == 0);
  const double mirror[6] = {-1, 0, 0, 0, 1, 0};
  CHECK(map(mirror, 32, 64, 32, 64).x_j == -1 && map(mirror, 32, 64, 32, 64).x_0 == 63);
  const double shift[6] = {1, 0, 2.0 * 8 / 64, 0, 1, 0};
  CHECK(map(shift, 32, 64, 32, 64).x_0 == 8);
}

// Σ over all pixels of hat(at − pixel) · value, which two taps must give.
void test_taps() {
  const int32_t n = 5;
  const double values[n] = {3, -1, 4, 1, -5};
  for (float at = -3.0f; at <= 8.0f; at += 0.125f) {
    double expected = 0;
    for (int32_t k = 0; k < n; ++k)
      expected += std::fmax(0.0, 1 - std::fabs(double(at) - k)) * values[k];
    const Taps t = taps(at, n);
    CHECK(t.first >= 0 && t.first + 1 < n);
    CHECK(t.weight_first * values[t.first] + t.weight_second * values[t.first + 1] == expected);
  }
  for (const float far : {-1e30f, 1e30f, -kInfinityf, kInfinityf}) {
    const Taps t = taps(far, n);
    CHECK(t.first >= 0 && t.first + 1 < n && t.weight_first == 0 && t.weight_second == 0);
  }
  const Taps nowhere = taps(kQuietNaNf, n);
  CHECK(nowhere.first >= 0 && nowhere.first + 1 < n && std::isnan(nowhere.weight_first));
}

void test_nearest() {
  CHECK(nearest(0.0f, 4) == 0 && nearest(3.0f, 4) == 3 && nearest(1.2f, 4) == 1);
  CHECK(nearest(0.5f, 4) == 0 && nearest(1.5f, 4) == 2);  // ties to even
  CHECK(nearest(-0.5f, 4) == 0 && nearest(3.49f, 4) == 3);
  for (const float outside : {-0.75f, 3.5f, 4.0f, 1e30f, -1e30f, kInfinityf, kQuietNaNf})
    CHECK(nearest(outside, 4) == -1);
}

// Each of the four pixels alone, all of them, and what is left of air beyond the border.
void test_interpolate() {
  const float air = ct_window::kAir;
  const Taps y{0, 0.75f, 0.25f}, x{0, 0.5f, 0.5f};
  CHECK(interpolate(y, x, air + 8, air, air, air) == air + 3);
  CHECK(interpolate(y, x, air, air + 8, air, air) == air + 3);
  CHECK(interpolate(y, x, air, air, air + 8, air) == air + 1);
  CHECK(interpolate(y, x, air, air, air, air + 8) == air + 1);
  CHECK(interpolate(y, x, air + 8, air + 8, air + 8, air + 8) == air + 8);
  CHECK(interpolate(y, Taps{0, 0.5f, 0}, air + 8, air + 8, air + 8, air + 8) == air + 4);
  CHECK(std::isnan(interpolate(y, x, kQuietNaNf, air, air, air)));
}

}  // namespace

int main() {
  test_map();
  test_taps();
  test_nearest();
  test_interpolate();
  test<float>();
  test<BFloat16>();
  test<double>();
  return finish("pool_batch", cases);
}
