// The math of attention_wmse against central differences; its kernels against the math in float64.
#include <algorithm>
#include <initializer_list>
#include <limits>
#include <vector>

#include "kernels/attention_wmse.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::attention_wmse;

void add(Balance balance, const Voxel<double>& v, double* sums) {
  balance == Balance::kPaper
      ? add<Balance::kPaper>(v, sums[kMask], sums[kBackground], sums[kForeground])
      : add<Balance::kRegion>(v, sums[kMask], sums[kBackground], sums[kForeground]);
}

struct Gradients {
  double logit, background, foreground;
};

template <Balance kBalance>
Gradients differentiate(double image, const Voxel<double>& v, const Scale<double>& s,
                        bool sigmoid_r) {
  return {grad_logit<kBalance>(image, v, s), grad_background<kBalance>(v, s, sigmoid_r),
          grad_foreground<kBalance>(v, s, sigmoid_r)};
}

Gradients differentiate(Balance balance, double image, const Voxel<double>& v,
                        const Scale<double>& s, bool sigmoid_r) {
  return balance == Balance::kPaper ? differentiate<Balance::kPaper>(image, v, s, sigmoid_r)
                                    : differentiate<Balance::kRegion>(image, v, s, sigmoid_r);
}

struct Exact {
  Doubles losses, grad_logits, grad_reconstruction;
};

Exact exact(const Doubles& x, const Doubles& z, const Doubles& r, const Doubles& grad,
            int64_t images, int64_t n, bool sigmoid_r, Balance balance) {
  Exact result;
  result.grad_reconstruction.resize(r.size());
  for (int64_t b = 0; b < images; ++b) {
    const auto at = [&](int64_t i) {
      return voxel(x[b * n + i], z[b * n + i], r[2 * b * n + i], r[(2 * b + 1) * n + i], sigmoid_r);
    };
    double sums[kSums] = {};
    for (int64_t i = 0; i < n; ++i) add(balance, at(i), sums);
    const auto l = loss(balance, sums, double(n));
    const auto s = scale(balance, l, grad[b], double(n));
    result.losses.push_back(l.value);
    for (int64_t i = 0; i < n; ++i) {
      const auto g = differentiate(balance, x[b * n + i], at(i), s, sigmoid_r);
      result.grad_logits.push_back(g.logit);
      result.grad_reconstruction[2 * b * n + i] = g.background;
      result.grad_reconstruction[(2 * b + 1) * n + i] = g.foreground;
    }
  }
  return result;
}

int cases = 0;

// X, Z, R are what the tensors hold; KX, KZ, KR what the kernel is compiled for. With `spoil` one
// voxel of the logits is NaN. Returns losses and gradients.
template <class A, Balance kBalance, bool kSigmoid, class X, class Z, class R, class KX, class KZ,
          class KR>
Doubles run(int64_t n, Layout layout, bool spoil = false) {
  ++cases;
  const int64_t images = 3;
  Random random(uint64_t(n) + 7);
  Doubles zs = random.several(images * n, -4, 4);
  if (spoil) zs[n + n / 2] = std::numeric_limits<double>::quiet_NaN();
  const TestTensor<X> x(images, 1, n, layout, random.several(images * n, 0, 1));
  const TestTensor<Z> z(images, 1, n, layout, zs);
  const TestTensor<R> r(images, 2, n, layout, random.several(2 * images * n, -1, 1));
  const TestTensor<float> grad(images, 1, 1, Layout::kSpaced, random.several(images, -200, 200));
  const Exact expected =
      exact(x.values(), z.values(), r.values(), grad.values(), images, n, kSigmoid, kBalance);

  const Launch launch;
  const TestArray<double> slots(attention_wmse::slots<KX, KZ, KR, Launch>(images, n));
  const TestArray<double> sums(images * kSums);
  const TestArray<A> losses(images);
  forward<kBalance, kSigmoid>(launch, x.template input<KX>(), z.template input<KZ>(),
                              r.template input<KR>(), images, n, slots.data(), sums.data(),
                              losses.data());
  const std::vector<A> values = losses.values();
  Doubles results(values.begin(), values.end());
  CHECK(close(results, expected.losses, tolerance<A, A>()));

  const TestTensor<Z> z_grad(images, 1, n, layout), z_alone(images, 1, n, layout);
  const TestTensor<R> r_grad(images, 2, n, layout), r_alone(images, 2, n, layout);
  const auto differentiate = [&]<bool kLogits, bool kReconstruction>(const TestTensor<Z>& z_out,
                                                                     const TestTensor<R>& r_out) {
    backward<kBalance, kSigmoid, kLogits, kReconstruction, A>(
        launch, grad.template input<Floating>(), x.template input<KX>(), z.template input<KZ>(),
        r.template input<KR>(), sums.data(), images, n,
        kLogits ? z_out.template output<KZ>() : Output<KZ>{},
        kReconstruction ? r_out.template output<KR>() : Output<KR>{});
  };
  differentiate.template operator()<true, true>(z_grad, r_grad);
  differentiate.template operator()<false, true>(z_alone, r_alone);
  differentiate.template operator()<true, false>(z_alone, r_alone);
  CHECK(close(z_grad.values(), expected.grad_logits, tolerance<A, Z>()));
  CHECK(close(r_grad.values(), expected.grad_reconstruction, tolerance<A, R>()));
  CHECK(close(z_alone.values(), expected.grad_logits, tolerance<A, Z>()));
  CHECK(close(r_alone.values(), expected.grad_reconstruction, tolerance<A, R>()));
  CHECK(z_grad.gaps_untouched() && r_grad.gaps_untouched());
  for (const Doubles& more : {z_grad.values(), r_grad.values()})
    results.insert(results.end(), more.begin(), more.end());
  return results;
}

// In every size, layout and form; the same bits in every layout.
template <Balance kBalance, class A, class X, class Z, class R, class KX, class KZ, class KR>
void test_balance() {
  for (const int64_t n : sizes()) {
    const auto contiguous = run<A, kBalance, true, X, Z, R, KX, KZ, KR>(n, Layout::kContiguous);
    run<A, kBalance, false, X, Z, R, KX, KZ, KR>(n, Layout::kContiguous);
    if (n < 257) continue;
    for (const Layout layout : kLayouts)
      CHECK(same_bits((run<A, kBalance, true, X, Z, R, KX, KZ, KR>(n, layout)), contiguous));
    run<A, kBalance, true, X, Z, R, KX, KZ, KR>(n, Layout::kContiguous, true);
  }
}

template <class A, class X, class Z, class R, class KX = X, class KZ = Z, class KR = R>
void test() {
  test_balance<Balance::kPaper, A, X, Z, R, KX, KZ, KR>();
  test_balance<Balance::kRegion, A, X, Z, R, KX, KZ, KR>();
}

// Planar or interleaved, whatever of it is aligned goes 16 bytes at a time.
template <Balance kBalance>
void test_wide() {
  const int64_t n = 2 * Chunking<4, Launch::kThreads>::kVoxels + 8;
  for (const Layout layout : {Layout::kContiguous, Layout::kChannelsLast, Layout::kPadded}) {
    CHECK(moves_wide(
        [&] { run<float, kBalance, true, float, float, float, float, float, float>(n, layout); }));
    CHECK(moves_wide(
        [&] { run<float, kBalance, true, Half, Half, Half, Half, Half, Half>(n, layout); }));
  }
}

constexpr double kQuietNaN = std::numeric_limits<double>::quiet_NaN();

struct Pixel {
  double image, logit, background, foreground;
};

double wmse(const std::vector<Pixel>& pixels, bool sigmoid_r, Balance balance, double* sums) {
  std::fill(sums, sums + kSums, 0.0);
  for (const Pixel& p : pixels) {
    add(balance, voxel(p.image, p.logit, p.background, p.foreground, sigmoid_r), sums);
  }
  return loss(balance, sums, double(pixels.size())).value;
}

void test_math(Balance balance) {
  std::vector<Pixel> pixels{{0.1, -2, 0.3, 1}, {0.9, 0.5, -1, 0.2}, {0.5, 3, 0, -0.4}};
  for (const bool sigmoid_r : {true, false}) {
    double sums[kSums], scratch[kSums];
    wmse(pixels, sigmoid_r, balance, sums);
    const double n = double(pixels.size());
    const Scale<double> s = scale(balance, loss(balance, sums, n), -1.5, n);
    for (Pixel& p : pixels) {
      const auto along = [&](double& input) {
        const double at = input;
        const auto f = [&](double x) {
          input = x;
          return wmse(pixels, sigmoid_r, balance, scratch);
        };
        const double slope = -1.5 * derivative(f, at);
        input = at;
        return slope;
      };
      const auto v = voxel(p.image, p.logit, p.background, p.foreground, sigmoid_r);
      const auto g = differentiate(balance, p.image, v, s, sigmoid_r);
      CHECK_NEAR(g.background, along(p.background), 1e-9);
      CHECK_NEAR(g.foreground, along(p.foreground), 1e-9);
      CHECK_NEAR(g.logit, along(p.logit), 1e-9);
    }
  }
  for (int spoiled = 0; spoiled < 4; ++spoiled) {
    double in[4] = {0.5, 0.5, 0.5, 0.5}, sums[kSums];
    in[spoiled] = kQuietNaN;
    CHECK(std::isnan(wmse({{in[0], in[1], in[2], in[3]}}, true, balance, sums)));
  }
}

// Two voxels of blood and four without count as in the formulas; none, or nothing else, as a mean.
void test_regions() {
  double sums[kSums];
  const auto of = [&](std::initializer_list<double> logits) {
    std::vector<Pixel> pixels;
    for (const double logit : logits) pixels.push_back({1, logit, logit > 0 ? -0.5 : 0.75, 0});
    return wmse(pixels, false, Balance::kRegion, sums);
  };
  const double in_b = 0.25 * 0.25, in_f = 0.5 * 0.5 + 1;  // d_b² + d_f²
  CHECK_NEAR(of({-40, 40, -40, -40, 40, -40}), 0.25 * (in_b * 4 / 5 + in_f * 2 / 3), 1e-12);
  CHECK_NEAR(of({-40, -40, -40}), 0.25 * in_b * 3 / 4, 1e-12);
  CHECK_NEAR(of({40, 40, 40}), 0.25 * in_f * 3 / 4, 1e-12);
}

}  // namespace

int main() {
  for (const Balance balance : {Balance::kPaper, Balance::kRegion}) test_math(balance);
  test_regions();
  test<float, float, float, float>();
  test<float, BFloat16, BFloat16, BFloat16>();
  test<float, float, Half, Half>();
  test<float, Half, float, BFloat16, Floating, Floating, Floating>();
  test<double, double, double, double, Floating, Floating, Floating>();
  test<double, float, double, Half, Floating, Floating, Floating>();
  test_wide<Balance::kPaper>();
  test_wide<Balance::kRegion>();
  return finish("attention_wmse", cases);
}
