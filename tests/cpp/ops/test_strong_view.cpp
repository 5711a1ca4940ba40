// The math of strong_view against its formulas and numbers worked out apart; its kernel against
// the math in float64, image by image.
#include <initializer_list>
#include <limits>

#include "kernels/strong_view.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::strong_view;

int cases = 0;

constexpr double kQuietNaN = std::numeric_limits<double>::quiet_NaN();

struct Recipe {
  double gamma, blur, noise;
};

// By the definition: a double sum over the neighbourhood, then power, noise and clamp.
double at_pixel(const double* image, const Shape& s, int64_t i, int64_t j, const Recipe& r,
                int64_t seed) {
  if (!(r.gamma > 0 && r.blur >= 0 && r.blur <= 3 && r.noise >= 0)) return kQuietNaN;
  const int64_t radius = int64_t(std::ceil(3 * r.blur));
  const auto weight = [&](int64_t d) {
    return d == 0 ? 1 : std::exp(-double(d * d) / (2 * r.blur * r.blur));
  };
  const auto inside = [](int64_t k, int64_t n) { return std::clamp<int64_t>(k, 0, n - 1); };
  double sum = 0, weights = 0;
  for (int64_t y = -radius; y <= radius; ++y) {
    for (int64_t x = -radius; x <= radius; ++x) {
      const double w = weight(y) * weight(x);
      const double value = image[inside(i + y, s.height) * s.width + inside(j + x, s.width)];
      sum += w * (std::isnan(value) ? value : std::clamp(value, 0.0, 1.0));
      weights += w;
    }
  }
  const Pair<double> pair =
      normal_pair<double>(uint32_t(i * s.width + j / 2 * 2), key(seed, 0), key(seed, 1));
  const double z = j % 2 ? pair.second : pair.first;
  const double view = std::pow(sum / weights, r.gamma) + r.noise * z;
  return std::isnan(view) ? view : std::clamp(view, 0.0, 1.0);
}

template <class A, class T>
void run(const Shape& s, Layout layout) {
  ++cases;
  // Each of the steps alone, all of them, none, and three of numbers that there are none of.
  const Recipe recipes[] = {{1.7, 0, 0}, {1, 1.2, 0}, {1, 0, 0.1},       {0.6, 3, 0.05}, {1, 0, 0},
                            {0, 0, 0.1}, {1, 3.1, 0}, {1, 0, kQuietNaN}, {0.8, 0.3, 0.2}};
  Random random(uint64_t(s.width) + 5);
  const int64_t pixels = s.height * s.width;
  const TestTensor<T> image(s.batch, 1, pixels, layout,
                            random.several(s.batch * pixels, -0.1, 1.1));
  Doubles gammas, blurs, noises, seeds;
  for (int64_t b = 0; b < s.batch; ++b) {
    const Recipe& recipe = recipes[b % std::ssize(recipes)];
    gammas.push_back(recipe.gamma);
    blurs.push_back(recipe.blur);
    noises.push_back(recipe.noise);
    seeds.push_back(double(b * 1000 - 2));
  }
  const TestTensor<float> gamma(s.batch, 1, 1, Layout::kSpaced, gammas);
  const TestTensor<double> blur(s.batch, 1, 1, Layout::kContiguous, blurs);
  const TestTensor<BFloat16> noise(s.batch, 1, 1, Layout::kContiguous, noises);
  const TestTensor<int64_t> seed(s.batch, 1, 1, Layout::kSpaced, seeds);
  const TestTensor<T> result(s.batch, 1, pixels, Layout::kContiguous);
  forward<A>(
      Launch(), image.input(),
      Numbers{gamma.template input<Floating>(), blur.template input<Floating>(),
              noise.template input<Floating>(), seed.input().data, seed.input().strides.image},
      s, result.output().data);
  const Doubles values = image.values(), actual = result.values();
  const Doubles gamma_values = gamma.values(), noise_values = noise.values();
  Doubles expected;
  bool same = true;
  for (int64_t b = 0; b < s.batch; ++b) {
    const Recipe recipe{gamma_values[b], blurs[b], noise_values[b]};
    for (int64_t p = 0; p < pixels; ++p) {
      expected.push_back(
          at_pixel(&values[b * pixels], s, p / s.width, p % s.width, recipe, int64_t(seeds[b])));
      if (b % std::ssize(recipes) == 4)  // nothing is done to it
        same &= actual[b * pixels + p] == std::clamp(values[b * pixels + p], 0.0, 1.0);
    }
  }
  CHECK((close(actual, expected, tolerance<A, T>())));
  CHECK(same);
  CHECK(result.gaps_untouched());
}

template <class A, class T>
void test() {
  for (const Layout layout : kLayouts) {
    for (const Shape& shape : {Shape{9, 16, 64}, Shape{9, 5, 3}, Shape{0, 5, 3}, Shape{9, 0, 8},
                               Shape{10, 35, 72}, Shape{9, 17, 65}})
      run<A, T>(shape, layout);
  }
}

void test_valid() {
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(valid(1, 0, 0) && valid(0.01, 3, 10));
  for (const double gamma : {0.0, -1.0, infinity, kQuietNaN}) CHECK(!valid(gamma, 0, 0));
  for (const double blur : {-1.0, 3.01, kQuietNaN}) CHECK(!valid(1, blur, 0));
  for (const double noise : {-1.0, infinity, kQuietNaN}) CHECK(!valid(1, 0, noise));
}

void test_power() {
  double worst = 0;
  for (double gamma = 0.05; gamma < 5; gamma += 0.05) {
    for (float x = 0; x <= 1; x += 0x1p-10f)
      worst = std::max(worst, std::abs(power(x, float(gamma)) - std::pow(double(x), float(gamma))));
    CHECK(power(0.0f, float(gamma)) == 0 && power(1.0f, float(gamma)) == 1);
  }
  std::printf("power: off by %.2e at worst\n", worst);
  CHECK(worst < 2e-7);
  CHECK(std::isnan(power(float(kQuietNaN), 2.0f)) && std::isnan(power(kQuietNaN, 2.0)));
}

void test_sine() {
  for (double t = -0.5; t <= 0.5; t += 0x1p-12) {
    const double exact = std::sin(std::acos(-1.0) * t);
    CHECK_NEAR(sine_of_half_turns(float(t)), exact, 1.5e-7);
    CHECK_NEAR(sine_of_half_turns(t), exact, 1e-15);
  }
}

// Numbers of the generator, worked out apart in Python's integers: they must never change, or a
// resumed run would go on with other noise.
void test_hash() {
  CHECK(key(0, 0).first == 0x7b1dcdafu && key(0, 0).second == 0xe220a839u);
  CHECK(key(-5, 1).first == 0x6d801508u && key(-5, 1).second == 0x8ebb778cu);
  CHECK(hash(0, key(0, 0)) == 0x48e214aeu);
  CHECK(hash(65535, key(-5, 1)) == 0x324154c4u);
}

// By the formula, and float beside double.
void test_normal() {
  const double pi = std::acos(-1.0);
  const Key radial = key(7, 0), angular = key(7, 1);
  double sum = 0, squares = 0, most = 0, worst = 0;
  const int64_t n = 1 << 20;
  for (int64_t p = 0; p < n; p += 2) {
    const uint32_t index = uint32_t(p);
    const Pair<double> z = normal_pair<double>(index, radial, angular);
    const Pair<float> z_float = normal_pair<float>(index, radial, angular);
    const double u = (double(hash(index, radial) >> 9) + 0.5) / 0x1p23;
    const double v = double(int32_t(hash(index, angular)) >> 8) / 0x1p24;
    CHECK_NEAR(z.first, std::sqrt(-2 * std::log(u)) * std::cos(2 * pi * v), 1e-14);
    CHECK_NEAR(z.second, std::sqrt(-2 * std::log(u)) * std::sin(2 * pi * v), 1e-14);
    worst =
        std::max({worst, std::abs(z.first - z_float.first), std::abs(z.second - z_float.second)});
    for (const double one : {z.first, z.second}) {
      most = std::max(most, std::abs(one));
      sum += one;
      squares += one * one;
    }
  }
  CHECK_NEAR(sum / double(n), 0, 4e-3);  // four standard errors
  CHECK_NEAR(squares / double(n), 1, 6e-3);
  std::printf("normal: up to %.2f, float off by %.2e at worst\n", most, worst);
  CHECK(most > 4.5 && most < 5.78);
  CHECK(worst < 1.5e-6);
}

}  // namespace

int main() {
  test_valid();
  test_power();
  test_sine();
  test_hash();
  test_normal();
  test<float, float>();
  test<float, BFloat16>();
  test<float, Half>();
  test<double, double>();
  return finish("strong_view", cases);
}
