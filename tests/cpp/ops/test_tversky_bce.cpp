// The math of tversky_bce against formulas and central differences; its kernels against the math in
// float64.
#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/tversky_bce.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::tversky_bce;

constexpr double kQuietNaN = std::numeric_limits<double>::quiet_NaN();

int cases = 0;

struct Shape {
  int64_t images, channels, voxels;
};

// P, T and M are what the tensors hold, M = One no mask; KP, KT and KM what the kernel is compiled
// for. With `spoil` one logit is NaN. Returns the results and the gradient.
template <class A, class P, class T, class M, class KP, class KT, class KM>
Doubles run(Shape shape, bool batch, Layout layout, bool spoil = false) {
  ++cases;
  constexpr bool kMask = !std::is_same_v<M, One>;
  using Stored = std::conditional_t<kMask, M, Bool>;
  const auto [images, channels, n] = shape;
  const int64_t rows = images * channels, groups = batch ? channels : rows;
  Random random(uint64_t(n) + 5);
  Doubles logits = random.several(rows * n, -9, 7);
  if (spoil) logits[n + n / 2] = kQuietNaN;
  Doubles targets = random.several(rows * n, 0, 1), weights = random.several(rows * n, 0, 1);
  if constexpr (sizeof(T) == 1)
    for (double& t : targets) t = t < 0.3;
  for (double& w : weights) w = kMask ? (sizeof(Stored) == 1 ? w < 0.7 : w) : 1;
  const TestTensor<P> z(images, channels, n, layout, logits);
  const TestTensor<T> t(images, channels, n, layout, targets);
  const TestTensor<Stored> w(images, channels, n, layout, weights);
  const Doubles qs{0.5, 3, 1.25};
  const TestTensor<float> q(1, channels, 1, Layout::kSpaced, {qs.begin(), qs.begin() + channels});
  const auto grads = [&] {
    return TestTensor<float>(batch ? 1 : images, channels, 1, Layout::kSpaced,
                             random.several(groups, -200, 200));
  };
  const TestTensor<float> grad_tversky = grads(), grad_cross_entropy = grads();
  const Parameters<double> parameters{0.3, 0.7, 1e-5, 2e-5};

  logits = z.values();
  targets = t.values();
  weights = w.values();
  Doubles sums_of(groups * kSums), expected, expected_grad;
  for (int64_t i = 0; i < rows * n; ++i) {
    const int64_t row = i / n;
    double* const sums = &sums_of[row % groups * kSums];
    const auto voxel = contribution(logits[i], targets[i], weights[i], qs[row % channels]);
    sums[kTP] += voxel.tp;
    sums[kFP] += voxel.fp;
    sums[kFN] += voxel.fn;
    sums[kCE] += voxel.ce;
    sums[kCount] += weights[i];
  }
  for (int64_t g = 0; g < groups; ++g)
    expected.push_back(tversky::loss(&sums_of[g * kSums], parameters));
  for (const int sum : {kCE, kCount})
    for (int64_t g = 0; g < groups; ++g) expected.push_back(sums_of[g * kSums + sum]);
  const Doubles of_tversky = grad_tversky.values(), of_cross_entropy = grad_cross_entropy.values();
  for (int64_t i = 0; i < rows * n; ++i) {
    const int64_t row = i / n, g = row % groups;
    const auto along =
        gradient(&sums_of[g * kSums], parameters, of_tversky[g], of_cross_entropy[g]);
    expected_grad.push_back(
        grad_logit(logits[i], targets[i], weights[i], qs[row % channels], along));
  }

  const Launch launch;
  Inputs<KP, KT, KM> inputs{
      z.template input<KP>(), t.template input<KT>(), {}, q.input<Floating>()};
  if constexpr (kMask) inputs.mask = w.template input<KM>();
  const TestArray<double> slots(tversky_bce::slots<KP, KT, KM, Launch>(rows, n));
  const TestArray<double> sums(groups * kSaved);
  const TestArray<A> results(3 * groups);
  forward(launch, inputs, parameters, batch, images, channels, n, slots.data(), sums.data(),
          results.data(), results.data() + groups, results.data() + 2 * groups);
  const std::vector<A> values = results.values();
  Doubles all(values.begin(), values.end());
  for (int part = 0; part < 3; ++part) {  // each on its own: the sums dwarf the overlap
    const auto of = [&](const Doubles& x) {
      return Doubles(x.begin() + part * groups, x.begin() + (part + 1) * groups);
    };
    CHECK(close(of(all), of(expected), tolerance<A, A>()));
  }

  const TestTensor<P> z_grad(images, channels, n, layout);
  backward<A>(launch, grad_tversky.template input<Floating>(),
              grad_cross_entropy.template input<Floating>(), inputs, sums.data(), parameters, batch,
              images, channels, n, z_grad.template output<KP>());
  CHECK(close(z_grad.values(), expected_grad, tolerance<A, P>()));
  CHECK(z_grad.gaps_untouched());
  const Doubles more = z_grad.values();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

template <class A, class P, class T, class M, class KP = P, class KT = T, class KM = M>
void test() {
  for (const int64_t n : sizes()) {
    const Shape shape{2, 3, n};
    const Doubles contiguous = run<A, P, T, M, KP, KT, KM>(shape, false, Layout::kContiguous);
    run<A, P, T, M, KP, KT, KM>(shape, true, Layout::kContiguous);
    if (n < 257) continue;
    for (const Layout layout : kLayouts)
      CHECK(same_bits((run<A, P, T, M, KP, KT, KM>(shape, false, layout)), contiguous));
    run<A, P, T, M, KP, KT, KM>({3, 1, n}, true, Layout::kContiguous, true);
  }
}

// Rows that begin at any voxel, too: head and tail alone go one by one.
void test_wide() {
  const int64_t chunk = Chunking<4, Launch::kThreads>::kVoxels;
  for (const int64_t n : {chunk, chunk + 5, 2 * chunk + 7}) {
    const Shape shape{2, 3, n};
    CHECK(moves_wide([&] {
      run<float, float, float, One, float, float, One>(shape, false, Layout::kContiguous);
    }));
    CHECK(moves_wide([&] {
      run<float, float, float, float, float, float, float>(shape, false, Layout::kContiguous);
    }));
    CHECK(moves_wide(
        [&] { run<float, Half, Half, One, Half, Half, One>(shape, false, Layout::kContiguous); }));
  }
}

// The formulas as they stand in the header, in float64; all numbers here are float32's, too.
template <class T>
void test_voxel(double tolerance) {
  const double w = 0.75, q = 3;
  for (const double t : {0.0, 1.0, 0.25}) {
    for (double z = -20; z <= 20; z += 0.375) {
      const double p = 1 / (1 + std::exp(-z)), not_p = 1 / (1 + std::exp(z));
      const double expected[] = {
          w * p * t, w * p * (1 - t), w * not_p * t,
          w * (q * t * std::log1p(std::exp(-z)) + (1 - t) * std::log1p(std::exp(z)))};
      const auto voxel = contribution(T(z), T(t), T(w), T(q));
      const double actual[] = {voxel.tp, voxel.fp, voxel.fn, voxel.ce};
      for (int i = 0; i < 4; ++i)
        CHECK_NEAR(actual[i], expected[i], tolerance * std::abs(expected[i]));
    }
  }
}

void test_gradient() {
  const Doubles targets{0, 1, 0.25, 1, 0}, weights{1, 0.5, 1, 0, 0.25};
  Doubles logits{0.9, -0.7, 2.5, 0.05, -4};
  const double q = 2.5, grad_tversky = 3, grad_cross_entropy = -0.7;
  for (const Parameters<double> p :
       {Parameters<double>{0.5, 0.5, 1e-5, 1e-5}, {1, 1, 0.5, 0.25}, {0.3, 0.8, 0, 0}}) {
    const auto sums_of = [&](double* sums) {
      std::fill(sums, sums + kSums, 0.0);
      for (size_t i = 0; i < targets.size(); ++i) {
        const auto voxel = contribution(logits[i], targets[i], weights[i], q);
        sums[kTP] += voxel.tp;
        sums[kFP] += voxel.fp;
        sums[kFN] += voxel.fn;
        sums[kCE] += voxel.ce;
      }
    };
    double sums[kSums];
    sums_of(sums);
    const Gradient<double> g = gradient(sums, p, grad_tversky, grad_cross_entropy);
    for (size_t i = 0; i < targets.size(); ++i) {
      const auto loss_at = [&](double z) {
        const double before = std::exchange(logits[i], z);
        double changed[kSums];
        sums_of(changed);
        logits[i] = before;
        return grad_tversky * tversky::loss(changed, p) + grad_cross_entropy * changed[kCE];
      };
      CHECK_NEAR(grad_logit(logits[i], targets[i], weights[i], q, g),
                 derivative(loss_at, logits[i]), 1e-8);
    }
  }
}

// However large a logit is: the limits, and nothing where the weight is 0.
template <class T>
void test_saturated() {
  const T w = T(0.5), q = 3;
  const Gradient<T> g{T(0.25), T(-0.5), 2};
  for (const T z : {T(100), T(1e4), T(3e38)}) {
    for (const T t : {T(0), T(1)}) {
      const auto high = contribution(z, t, w, q), low = contribution(-z, t, w, q);
      CHECK(high.tp == w * t && high.fp == w * (1 - t) && high.fn < T(1e-37));
      CHECK(low.tp < T(1e-37) && low.fp < T(1e-37) && low.fn == w * t);
      CHECK(t == 0 ? high.ce == w * z : high.ce < T(1e-36));
      CHECK(t == 1 ? low.ce == w * q * z || std::isinf(w * q * z) : low.ce < T(1e-36));
      CHECK_NEAR(grad_logit(z, t, w, q, g), g.cross_entropy * w * (1 - t), 1e-36);
      CHECK_NEAR(grad_logit(-z, t, w, q, g), -g.cross_entropy * w * q * t, 1e-36);
      for (const T side : {z, -z}) {
        const auto none = contribution(side, T(255) * t, T(0), q);
        CHECK(none.tp == 0 && none.fp == 0 && none.fn == 0 && none.ce == 0);
        CHECK(grad_logit(side, T(255) * t, T(0), q, g) == 0);
      }
    }
  }
  const T nan = T(kQuietNaN);
  for (const T z : {nan, -nan}) {
    const auto voxel = contribution(z, T(0.5), w, q);
    CHECK(std::isnan(voxel.tp) && std::isnan(voxel.fp) && std::isnan(voxel.fn));
    CHECK(std::isnan(voxel.ce) && std::isnan(grad_logit(z, T(0.5), w, q, g)));
  }
}

}  // namespace

int main() {
  test_voxel<float>(6e-7);
  test_voxel<double>(1e-14);
  test_gradient();
  test_saturated<float>();
  test_saturated<double>();
  test<float, float, uint8_t, One>();
  test<float, float, float, float>();
  test<float, BFloat16, Bool, Bool>();
  test<float, Half, Half, One>();
  test<float, float, BFloat16, Half, Floating, Target, Target>();
  test<double, double, Bool, One, Floating, Target, One>();
  test_wide();
  return finish("tversky_bce", cases);
}
