// Where an output pixel looks, which pixels it finds there and what each weighs.
#include <initializer_list>
#include <limits>

#include "check.h"
#include "math/pool_batch.h"

namespace {

using namespace ichfast;
using namespace ichfast::pool_batch;

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
  return finish();
}
