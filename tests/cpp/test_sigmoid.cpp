// Exponential and logarithms against the standard library's, and the sigmoid with its slope.
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

void test_log1p() {
  double worst = 0;
  for (uint32_t bits = 1; bits <= 0x3f800000; bits += 1021) {  // every exponent up to 1
    const float e = float_of(bits);
    const double exact = std::log1p(double(e));
    if (e < 1.2e-38f) continue;  // a denormal has no more digits than it has
    worst = std::max(worst, std::abs(log1p_of_unit(e) - exact) / exact);
  }
  std::printf("log1p: %.2e of the value at worst\n", worst);
  CHECK(worst < 2.1e-7);
  CHECK(std::isnan(log1p_of_unit(kQuietNaNf)));
  CHECK(log1p_of_unit(0.0f) == 0 && log1p_of_unit(0.0) == 0);
}

void test_logarithm() {
  double worst = 0;
  for (uint32_t bits = 0x00800000; bits < 0x7f800000; bits += 509) {  // every exponent
    const float x = float_of(bits);
    const double exact = std::log(double(x));
    CHECK((logarithm(x) > 0) == (x > 1) && (logarithm(x) < 0) == (x < 1));
    if (x != 1) worst = std::max(worst, std::abs((logarithm(x) - exact) / exact));
  }
  std::printf("log: %.2e of the value at worst\n", worst);
  CHECK(worst < 1.2e-7);
  CHECK(logarithm(1.0f) == 0 && logarithm(0.0f) < -87 && logarithm(kInfinityf) > 88);
  CHECK(std::isnan(logarithm(kQuietNaNf)) && std::isnan(logarithm(kQuietNaN)));
}

void test_choose() {
  const float positive[] = {1e-45f, 1e-38f, 2, kInfinityf};
  for (const float z : positive) {
    CHECK(choose(z, 3.0f, -4.0f) == 3 && choose(-z, 3.0f, -4.0f) == -4);
    CHECK(choose(double(z), 3.0, -4.0) == 3 && choose(-double(z), 3.0, -4.0) == -4);
  }
}

void test_sigmoid() {
  for (double x = -30; x <= 30; x += 0.37) {
    const double y = sigmoid(x);
    const Sigmoid<double> whole = whole_sigmoid(x);
    CHECK_NEAR(whole.slope, derivative([](double t) { return sigmoid(t); }, x), 1e-9);
    CHECK_NEAR(whole.value, y, 1e-15 * y);
    CHECK_NEAR(sigmoid(float(x)), sigmoid(double(float(x))), 3e-7 * y);
    CHECK_NEAR(y + sigmoid(-x), 1, 1e-15);
  }
  CHECK(sigmoid(kInfinityf) == 1 && sigmoid(kInfinity) == 1);
  CHECK(sigmoid(-kInfinityf) < 3e-38f && sigmoid(-kInfinity) == 0);
  CHECK(std::isnan(sigmoid(kQuietNaNf)) && std::isnan(sigmoid(kQuietNaN)));
}

// To the last digits on both sides, up to where float32 has no more normal numbers.
void test_saturation() {
  for (float x = -86.5f; x <= 86.5f; x += 0.37f) {
    const double e = std::exp(-std::abs(double(x))), r = 1 / (1 + e);
    const double y = x > 0 ? r : e * r, rest = x > 0 ? e * r : r;
    const Sigmoid<float> s = whole_sigmoid(x);
    const Sigmoid<double> d = whole_sigmoid(double(x));
    CHECK_NEAR(s.value, y, 5e-7 * y);
    CHECK_NEAR(s.complement, rest, 5e-7 * rest);
    CHECK_NEAR(s.slope, e * r * r, 8e-7 * e * r * r);
    CHECK_NEAR(d.value, y, 1e-15 * y);
    CHECK_NEAR(d.complement, rest, 1e-15 * rest);
    CHECK_NEAR(d.slope, e * r * r, 1e-15 * e * r * r);
    const auto [first, second] = two_sigmoids(x, -x);
    CHECK(first.value == s.value && second.value == whole_sigmoid(-x).value);
  }
  for (const float x : {1e4f, kInfinityf}) {
    const Sigmoid<float> most = whole_sigmoid(x), least = whole_sigmoid(-x);
    CHECK(most.value == 1 && most.complement < 3e-38f && most.slope < 3e-38f);
    CHECK(least.value < 3e-38f && least.complement == 1 && least.slope < 3e-38f);
    const Sigmoid<double> wide = whole_sigmoid(-double(x));
    CHECK(wide.value == 0 && wide.complement == 1 && wide.slope == 0);
  }
  const Sigmoid<float> none = whole_sigmoid(kQuietNaNf);
  CHECK(std::isnan(none.value) && std::isnan(none.complement) && std::isnan(none.slope));
}

}  // namespace

int main() {
  test_exponential();
  test_log1p();
  test_logarithm();
  test_choose();
  test_sigmoid();
  test_saturation();
  return finish();
}
