// The loss and its gradient.
#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "check.h"
#include "math/tversky.h"

namespace {

using namespace ichfast;

constexpr double kQuietNaN = std::numeric_limits<double>::quiet_NaN();

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

}  // namespace

int main() {
  test_tversky();
  return finish();
}
