// The masked images, and their gradient in both inputs.
#include <limits>

#include "check.h"
#include "math/attention_mask.h"

namespace {

using namespace ichfast;

constexpr float kQuietNaNf = std::numeric_limits<float>::quiet_NaN();

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

}  // namespace

int main() {
  test_attention_mask();
  return finish();
}
