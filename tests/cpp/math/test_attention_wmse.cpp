// L_u, and its gradient in every input.
#include <algorithm>
#include <limits>
#include <vector>

#include "check.h"
#include "math/attention_wmse.h"

namespace {

using namespace ichfast;

constexpr double kQuietNaN = std::numeric_limits<double>::quiet_NaN();

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

}  // namespace

int main() {
  test_attention_wmse();
  return finish();
}
