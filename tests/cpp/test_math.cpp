// Value and derivative of every csrc/math header, without torch: derivatives against central
// differences, float against double, and what becomes of NaN and ∞.
#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "check.h"
#include "math/attention_mask.h"
#include "math/attention_wmse.h"
#include "math/ct_window.h"
#include "math/overlap_counts.h"
#include "math/tversky.h"

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
    CHECK_NEAR(sigmoid_slope(y), derivative(sigmoid<double>, x), 1e-9);
    CHECK_NEAR(sigmoid(float(x)), sigmoid(double(float(x))), 3e-7 * y);
    CHECK_NEAR(y + sigmoid(-x), 1, 1e-15);
  }
  CHECK(sigmoid(kInfinityf) == 1 && sigmoid(kInfinity) == 1);
  CHECK(sigmoid(-kInfinityf) < 3e-38f && sigmoid(-kInfinity) == 0);
  CHECK(std::isnan(sigmoid(kQuietNaNf)) && std::isnan(sigmoid(kQuietNaN)));
}

void test_tversky() {
  using namespace tversky;
  const std::vector<double> targets{0, 1, 0.25, 1, 0};
  std::vector<double> predictions{0.9, 0.7, 0.2, 0.05, 0.4};
  for (const Parameters<double> p : {Parameters<double>{0.5, 0.5, 1e-5, 1e-5},
                                     {1, 1, 0.5, 0.25},
                                     {0.3, 0.8, 0, 0},
                                     {0, 1, 1, 2}}) {
    const auto sums_of = [&](double* sums) {
      std::fill(sums, sums + kSums, 0.0);
      for (size_t i = 0; i < targets.size(); ++i) {
        sums[kTP] += predictions[i] * targets[i];
        sums[kFP] += predictions[i] * (1 - targets[i]);
        sums[kFN] += (1 - predictions[i]) * targets[i];
      }
    };
    const auto loss_with = [&](size_t i, double value) {
      const double before = std::exchange(predictions[i], value);
      double sums[kSums];
      sums_of(sums);
      predictions[i] = before;
      return loss(sums, p);
    };
    double sums[kSums];
    sums_of(sums);
    const Gradient<double> g = gradient(sums, p, 3.0);
    for (size_t i = 0; i < targets.size(); ++i) {
      const auto f = [&](double x) { return loss_with(i, x); };
      CHECK_NEAR(g.constant + g.slope * targets[i], 3 * derivative(f, predictions[i]), 1e-8);
    }
  }
  const double nothing[kSums] = {0, 0, 0}, spoiled[kSums] = {1, kQuietNaN, 1};
  CHECK(loss(nothing, Parameters<double>{1, 1, 1e-5, 1e-5}) == 0);
  CHECK(std::isnan(loss(spoiled, Parameters<double>{1, 1, 1e-5, 1e-5})));
}

struct Pixel {
  double image, logit, background, foreground;
};

double wmse(const std::vector<Pixel>& pixels, bool sigmoid_r, double* sums) {
  using namespace attention_wmse;
  std::fill(sums, sums + kSums, 0.0);
  for (const Pixel& p : pixels) {
    const auto v = voxel(p.image, p.logit, p.background, p.foreground, sigmoid_r);
    sums[kMask] += v.mask;
    sums[kBackground] += v.residual_b * v.residual_b;
    sums[kForeground] += v.residual_f * v.residual_f;
  }
  return loss(sums, double(pixels.size())).value;
}

void test_attention_wmse() {
  using namespace attention_wmse;
  std::vector<Pixel> pixels{{0.1, -2, 0.3, 1}, {0.9, 0.5, -1, 0.2}, {0.5, 3, 0, -0.4}};
  for (const bool sigmoid_r : {true, false}) {
    double sums[kSums], scratch[kSums];
    wmse(pixels, sigmoid_r, sums);
    const double n = double(pixels.size());
    const Scale<double> s = scale(loss(sums, n), -1.5, n);
    for (Pixel& p : pixels) {
      const auto along = [&](double& input) {
        const double at = input;
        const auto f = [&](double x) {
          input = x;
          return wmse(pixels, sigmoid_r, scratch);
        };
        const double slope = -1.5 * derivative(f, at);
        input = at;
        return slope;
      };
      const auto v = voxel(p.image, p.logit, p.background, p.foreground, sigmoid_r);
      CHECK_NEAR(grad_background(v, s, sigmoid_r), along(p.background), 1e-9);
      CHECK_NEAR(grad_foreground(v, s, sigmoid_r), along(p.foreground), 1e-9);
      CHECK_NEAR(grad_logit(p.image, v, s), along(p.logit), 1e-9);
    }
  }
  for (int spoiled = 0; spoiled < 4; ++spoiled) {
    double in[4] = {0.5, 0.5, 0.5, 0.5}, sums[kSums];
    in[spoiled] = kQuietNaN;
    CHECK(std::isnan(wmse({{in[0], in[1], in[2], in[3]}}, true, sums)));
  }
}

void test_attention_mask() {
  using namespace attention_mask;
  const Pair<double> g{0.7, -1.3};
  for (double z = -5; z <= 5; z += 0.5) {
    const double x = 0.8;
    const auto dot = [&](double image, double logit) {
      const Pair<double> pair = masked(image, logit);
      return g.background * pair.background + g.foreground * pair.foreground;
    };
    CHECK_NEAR(grad_image(z, g), derivative([&](double image) { return dot(image, z); }, x), 1e-9);
    CHECK_NEAR(grad_logit(x, z, g), derivative([&](double logit) { return dot(x, logit); }, z),
               1e-9);
    CHECK_NEAR(masked(x, z).background + masked(x, z).foreground, x, 1e-15);
  }
  CHECK(std::isnan(masked(kQuietNaNf, 0.0f).background) &&
        std::isnan(masked(0.5f, kQuietNaNf).foreground));
}

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

void test_overlap_counts() {
  using namespace overlap_counts;
  const auto counted = [](float p, float t, int32_t tp, int32_t fp, int32_t fn, int32_t nan) {
    int32_t counts[kCounts] = {};
    count(p, t, 0.5f, counts);
    return counts[kTP] == tp && counts[kFP] == fp && counts[kFN] == fn && counts[kNaN] == nan;
  };
  CHECK(counted(0.6f, 1, 1, 0, 0, 0));
  CHECK(counted(0.6f, 0, 0, 1, 0, 0));
  CHECK(counted(0.5f, 0.1f, 0, 0, 1, 0));  // exceeds, not reaches; any target above 0
  CHECK(counted(0.5f, 0, 0, 0, 0, 0));
  CHECK(counted(kInfinityf, -1, 0, 1, 0, 0));
  CHECK(counted(kQuietNaNf, 0, 0, 0, 0, 1) && counted(0, kQuietNaNf, 0, 0, 0, 1));
}

}  // namespace

int main() {
  test_exponential();
  test_sigmoid();
  test_tversky();
  test_attention_wmse();
  test_attention_mask();
  test_ct_window<float>();
  test_ct_window<double>();
  test_overlap_counts();
  std::printf("%s\n", failures ? "FAILED" : "all hold");
  return failures != 0;
}
