// The exponential against the standard library's, and the sigmoid with its slope.
#include <algorithm>
#include <cstring>
#include <limits>

#include "check.h"
#include "math/sigmoid.h"

namespace {

using namespace ichfast;

constexpr double kQuietNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr float kQuietNaNf = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinityf = std::numeric_limits<float>::infinity();

float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Every exponent and sign, a million numbers.
void test_exponential() {
  const float limit = float_of(0x42ad3333);  // 86.6
  double worst = 0;
  for (uint64_t bits = 0; bits < 1ull << 32; bits += 4093) {
    const float x = float_of(uint32_t(bits));
    const float y = exponential(x);
    if (std::isnan(x)) {
      CHECK(std::isnan(y));
      continue;
    }
    CHECK(y > 0 && y < kInfinityf);
    if (std::abs(x) > limit) {
      CHECK(y == exponential(std::copysign(limit, x)));
      continue;
    }
    const double exact = std::exp(double(x));
    const float rounded = float(exact);
    const double ulp = double(std::nextafter(rounded, kInfinityf)) - rounded;
    worst = std::max(worst, std::abs(y - exact) / ulp);
  }
  std::printf("exponential: %.2f ulp at worst\n", worst);
  CHECK(worst <= 3);
  CHECK(exponential(0.0f) == 1);
}

void test_sigmoid() {
  for (double x = -30; x <= 30; x += 0.37) {
    const double y = sigmoid(x);
    CHECK_NEAR(sigmoid_slope(y), derivative([](double t) { return sigmoid(t); }, x), 1e-9);
    CHECK_NEAR(sigmoid(float(x)), sigmoid(double(float(x))), 3e-7 * y);
    CHECK_NEAR(y + sigmoid(-x), 1, 1e-15);
  }
  CHECK(sigmoid(kInfinityf) == 1 && sigmoid(kInfinity) == 1);
  CHECK(sigmoid(-kInfinityf) < 3e-38f && sigmoid(-kInfinity) == 0);
  CHECK(std::isnan(sigmoid(kQuietNaNf)) && std::isnan(sigmoid(kQuietNaN)));
}

}  // namespace

int main() {
  test_exponential();
  test_sigmoid();
  return finish();
}
