// The math of paste against its formulas; its kernel against the math in float64, by the definition
// of the blur as a sum over two dimensions.
#include <initializer_list>
#include <limits>

#include "kernels/paste.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::paste;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

int cases = 0;

// What the kernel has to make of image b.
class Exact {
 public:
  Exact(const Shape& shape, const double* image, const double* region, double sigma, double low,
        double high)
      : shape_(shape), image_(image), region_(region), low_(low), high_(high) {
    reach_ = int64_t(std::ceil(3 * sigma));
    for (int64_t k = -reach_; k <= reach_; ++k)
      weights_.push_back(k == 0 ? 1 : std::exp(-double(k * k) / (2 * sigma * sigma)));
    double sum = 0;
    for (const double weight : weights_) sum += weight;
    for (double& weight : weights_) weight /= sum;
  }

  bool r(int64_t y, int64_t x) const {
    if (y < 0 || y >= shape_.height || x < 0 || x >= shape_.width) return false;
    const int64_t at = y * shape_.width + x;
    return region_[at] != 0 && image_[at] >= low_ && image_[at] <= high_;
  }

  double a(int64_t y, int64_t x) const {
    double sum = 0;
    for (int64_t k = -reach_; k <= reach_; ++k)
      for (int64_t l = -reach_; l <= reach_; ++l)
        if (r(y + k, x + l)) sum += weights_[k + reach_] * weights_[l + reach_];
    return sum;
  }

 private:
  Shape shape_;
  const double *image_, *region_;
  double low_, high_;
  int64_t reach_;
  Doubles weights_;
};

// Computed in A; T of the images, E of the targets.
template <class A, class T, class E>
void run(const Shape& shape, Layout layout, const Doubles& sigmas, bool with_targets) {
  ++cases;
  Random random(uint64_t(shape.width) + 31);
  const int64_t n = shape.pixels(), all = shape.batch * n;
  // Half of the images' tiles are without a region.
  Doubles region_values = random.several(all, 0, 1);
  for (int64_t i = 0; i < all; ++i)
    region_values[i] = region_values[i] < 0.05 && i % n < n / 2 ? 200 : 0;
  const TestTensor<T> image(shape.batch, 1, n, layout, random.several(all, 0, 1));
  const TestTensor<T> source(shape.batch, 1, n, layout, random.several(all, 0, 1));
  const TestTensor<uint8_t> region(shape.batch, 1, n, layout, region_values);
  const TestTensor<E> target(shape.batch, 1, n, layout, random.several(all, 0, 100));
  const TestTensor<E> source_target(shape.batch, 1, n, layout, random.several(all, 0, 100));
  const TestTensor<float> feather(shape.batch, 1, 1, Layout::kSpaced, sigmas);
  const TestTensor<T> image_out(shape.batch, 1, n, layout);
  const TestTensor<E> target_out(shape.batch, 1, n, layout);
  const double low = 0.25, high = 0.875;
  Targets targets{};
  if (with_targets)
    targets = {target.template input<Word>(), source_target.template input<Word>(),
               target_out.template output<Word>()};
  const bool wide = moves_wide([&] {
    forward<A>(Launch(), image.input(), source.input(), region.input(), targets,
               feather.template input<Floating>(), low, high, shape, image_out.output());
  });
  // Of bytes a region is read once or twice each.
  if (layout == Layout::kContiguous && !with_targets && shape.width % 16 == 0) CHECK(wide);

  const Doubles x = image.values(), s = source.values(), t = target.values();
  const Doubles u = source_target.values(), inside = region.values(), sigma = feather.values();
  const Doubles actual = image_out.values(), moved = target_out.values();
  Doubles expected(all);
  bool copied = true, right = true;
  for (int64_t b = 0; b < shape.batch; ++b) {
    const bool valid = sigma[b] >= 0 && sigma[b] <= 4;
    const Exact exact(shape, x.data() + b * n, inside.data() + b * n, valid ? sigma[b] : 0, low,
                      high);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = b * n + i, y = i / shape.width, column = i % shape.width;
      const double a = valid ? exact.a(y, column) : 0;
      expected[at] = valid ? x[at] + a * (s[at] - x[at]) : kNaN;
      if (valid && a == 0) copied &= actual[at] == x[at];
      const bool of_source = valid && exact.r(y, column);
      right &= moved[at] == (of_source ? u[at] : t[at]);
    }
  }
  CHECK(close(actual, expected, tolerance<A, T>()));
  CHECK(copied);
  CHECK(image_out.gaps_untouched());
  CHECK(target_out.gaps_untouched());
  if (with_targets) CHECK(right);
}

constexpr Layout kRowLayouts[] = {Layout::kContiguous, Layout::kMisaligned, Layout::kPadded};

template <class A, class T, class E>
void test() {
  const Doubles sigmas{1, 0, 0.3, -1}, wide_sigmas{4, kNaN, 2.5, 1e30};
  for (const Layout layout : kRowLayouts) {
    run<A, T, E>({4, 40, 80}, layout, sigmas, true);
    run<A, T, E>({4, 40, 80}, layout, sigmas, false);
    run<A, T, E>({4, 33, 67}, layout, wide_sigmas, true);
    run<A, T, E>({4, 1, 5}, layout, sigmas, true);
    run<A, T, E>({4, 3, 1}, layout, wide_sigmas, false);
    run<A, T, E>({4, 0, 8}, layout, sigmas, true);
  }
}

void test_sigma() {
  for (const double sigma : {0.0, 1e-300, 0.5, 4.0}) CHECK(valid_sigma(sigma));
  for (const double sigma : {-1e-300, 4.0000001, kInfinity, -kInfinity, kNaN})
    CHECK(!valid_sigma(sigma));
  CHECK(reach(0) == 0 && reach(1e-300) == 1 && reach(1) == 3 && reach(1.01) == 4);
  CHECK(reach(kLargestSigma) == kLargestReach);
}

void test_weights() {
  for (const double sigma : {0.3, 1.0, 1.7, 4.0}) {
    double sum = 0;
    for (int k = -reach(sigma); k <= reach(sigma); ++k) {
      const double expected = std::exp(-double(k * k) / (2 * sigma * sigma));
      CHECK_NEAR(relative_weight(std::abs(k), sigma), expected, 1e-15);
      sum += expected;
    }
    CHECK_NEAR(sum_of_weights(sigma), sum, 1e-14);
  }
  for (const double sigma : {0.0, 1e-320, 1e-300}) {  // no 0 / 0 and no 0 · ∞
    CHECK(relative_weight(0, sigma) == 1 && relative_weight(1, sigma) == 0);
    CHECK(sum_of_weights(sigma) == 1);
  }
}

void test_chosen() {
  CHECK(chosen(true, 0.5, 0.25, 0.75) && !chosen(false, 0.5, 0.25, 0.75));
  CHECK(chosen(true, 0.25, 0.25, 0.75) && chosen(true, 0.75, 0.25, 0.75));
  CHECK(!chosen(true, 0.2, 0.25, 0.75) && !chosen(true, 0.8, 0.25, 0.75));
  CHECK(chosen(true, kInfinity, -kInfinity, kInfinity));
  CHECK(!chosen(true, kNaN, -kInfinity, kInfinity));
}

// Exact at both ends, whatever the other number is, and linear between.
void test_mix() {
  for (const double other : {kNaN, kInfinity, -kInfinity, 1e300}) {
    CHECK(mix(0.3, other, 0.0) == 0.3);
    CHECK(mix(other, 0.3, 1.0) == 0.3);
  }
  CHECK(mix(0.1f, 0.7f, 0.0f) == 0.1f && mix(0.1f, 0.7f, 1.0f) == 0.7f);
  CHECK(mix(0.1f, 0.7f, 1.0000001f) == 0.7f);
  CHECK_NEAR(mix(2.0, 6.0, 0.25), 3, 1e-15);
  CHECK(std::isnan(mix(kNaN, 0.3, 0.5)) && std::isnan(mix(0.3, kNaN, 0.5)));
}

}  // namespace

int main() {
  test_sigma();
  test_weights();
  test_chosen();
  test_mix();
  test<float, float, uint8_t>();
  test<float, float, uint64_t>();
  test<float, BFloat16, uint16_t>();
  test<double, double, uint32_t>();
  return finish("paste", cases);
}
