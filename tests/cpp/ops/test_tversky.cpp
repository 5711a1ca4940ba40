// The math of tversky against central differences; its kernels against the math in float64.
#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/tversky.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::tversky;

int cases = 0;

struct Shape {
  int64_t images, channels, voxels;
};

// P and T are what the tensors hold; KP and KT what the kernel is compiled for. With `spoil` one
// voxel of the prediction is NaN. Returns losses and gradient.
template <class A, bool kSigmoid, class P, class T, class KP, class KT>
Doubles run(Shape shape, bool batch, Layout layout, bool spoil = false) {
  ++cases;
  const auto [images, channels, n] = shape;
  const int64_t rows = images * channels, losses_count = batch ? channels : rows;
  Random random(uint64_t(n) + 3);
  Doubles ps = random.several(rows * n, kSigmoid ? -5 : 0, kSigmoid ? 3 : 1);
  if (spoil) ps[n + n / 2] = std::numeric_limits<double>::quiet_NaN();
  Doubles ts = random.several(rows * n, 0, 1);
  if constexpr (sizeof(T) == 1)
    for (double& t : ts) t = t < 0.3;
  const TestTensor<P> p(images, channels, n, layout, ps);
  const TestTensor<T> t(images, channels, n, layout, ts);
  const TestTensor<float> grad(batch ? 1 : images, channels, 1, Layout::kSpaced,
                               random.several(losses_count, -200, 200));
  const Parameters<double> parameters{0.3, 0.7, 1e-5, 2e-5};

  ps = p.values();
  ts = t.values();
  if (kSigmoid)
    for (double& y : ps) y = sigmoid(y);
  Doubles sums_of(losses_count * kSums), expected_losses, expected_grad(rows * n);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = row * n; i < (row + 1) * n; ++i) {
      sums_of[row % losses_count * kSums + kTP] += ps[i] * ts[i];
      sums_of[row % losses_count * kSums + kFP] += ps[i] * (1 - ts[i]);
      sums_of[row % losses_count * kSums + kFN] += (1 - ps[i]) * ts[i];
    }
  }
  for (int64_t g = 0; g < losses_count; ++g)
    expected_losses.push_back(loss(&sums_of[g * kSums], parameters));
  const Doubles grads = grad.values();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t g = row % losses_count;
    const auto along = gradient(&sums_of[g * kSums], parameters, grads[g]);
    for (int64_t i = row * n; i < (row + 1) * n; ++i) {
      expected_grad[i] = along.constant + along.slope * ts[i];
      if (kSigmoid) expected_grad[i] *= ps[i] * (1 - ps[i]);
    }
  }

  const Launch launch;
  const TestArray<double> slots(tversky::slots<KP, KT, Launch>(rows, n));
  const TestArray<double> sums(losses_count * kSums);
  const TestArray<A> losses(losses_count);
  forward<kSigmoid>(launch, p.template input<KP>(), t.template input<KT>(), parameters, batch,
                    images, channels, n, slots.data(), sums.data(), losses.data());
  const std::vector<A> values = losses.values();
  Doubles results(values.begin(), values.end());
  CHECK(close(results, expected_losses, tolerance<A, A>()));

  const TestTensor<P> p_grad(images, channels, n, layout);
  backward<kSigmoid, A>(launch, grad.template input<Floating>(), p.template input<KP>(),
                        t.template input<KT>(), sums.data(), parameters, batch, images, channels, n,
                        p_grad.template output<KP>());
  CHECK(close(p_grad.values(), expected_grad, tolerance<A, P>()));
  CHECK(p_grad.gaps_untouched());
  const Doubles more = p_grad.values();
  results.insert(results.end(), more.begin(), more.end());
  return results;
}

template <class A, class P, class T, class KP = P, class KT = T>
void test() {
  for (const int64_t n : sizes()) {
    const Shape shape{2, 3, n};
    const Doubles contiguous = run<A, true, P, T, KP, KT>(shape, false, Layout::kContiguous);
    run<A, false, P, T, KP, KT>(shape, true, Layout::kContiguous);
    if (n < 257) continue;
    for (const Layout layout : kLayouts)
      CHECK(same_bits((run<A, true, P, T, KP, KT>(shape, false, layout)), contiguous));
    run<A, true, P, T, KP, KT>({3, 1, n}, true, Layout::kContiguous, true);
  }
}

// Rows that begin at any voxel, too: head and tail alone go one by one.
void test_wide() {
  const int64_t chunk = Chunking<4, Launch::kThreads>::kVoxels;
  for (const int64_t n : {chunk, chunk + 5, 2 * chunk + 7}) {
    const Shape shape{2, 3, n};
    CHECK(moves_wide(
        [&] { run<float, true, float, float, float, float>(shape, false, Layout::kContiguous); }));
    CHECK(moves_wide(
        [&] { run<float, true, Half, Half, Half, Half>(shape, false, Layout::kContiguous); }));
  }
}

void test_divisor() {
  const uint32_t most = 0x7fffffff;
  for (const uint32_t d :
       {1u, 2u, 3u, 5u, 7u, 255u, 256u, 257u, 641u, 65535u, 65537u, 0x40000001u, most - 1, most}) {
    const Divisor divisor(d);
    for (const uint32_t n :
         {0u, 1u, d - 1, d, d + 1, 2 * d - 1, most / d * d - 1, most / d * d, most - 1, most})
      if (n <= most) CHECK(divisor.divide(n) == n / d);
  }
  CHECK(Divisor(0).divisor() == 1);
}

// Blocks get larger, not more, from a number on; and no row is cut otherwise for the voxels that
// others have.
void test_cuts() {
  constexpr int64_t kPlenty = Launch::kPlentyOfBlocks;
  const int64_t chunk = Chunking<4, Launch::kThreads>::kVoxels;
  for (const int64_t rows : {int64_t(1), int64_t(3), kPlenty / 2, kPlenty}) {
    for (int64_t chunks = 1; chunks < 70 * kPlenty; chunks = 2 * chunks + 1) {
      const Cut cut = cut_rows<4, Launch>(rows, 1, chunks * chunk - 3);
      CHECK(cut.blocks() * cut.steps * (chunk / kSteps) >= rows * cut.voxels);
      CHECK(cut.steps == kSteps || cut.blocks() >= kPlenty);
      CHECK(cut.steps == kMostSteps || cut.blocks() < 2 * kPlenty + rows);
    }
  }
  CHECK((cut_rows<4, Launch>(3, 2, 0).blocks() == 0));
}

constexpr double kQuietNaN = std::numeric_limits<double>::quiet_NaN();

void test_math() {
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
  test_math();
  test_divisor();
  test_cuts();
  test<float, float, uint8_t>();
  test<float, float, float>();
  test<float, BFloat16, Bool>();
  test<float, Half, Half>();
  test<float, float, BFloat16, Floating, Target>();
  test<double, double, Bool, Floating, Target>();
  test_wide();
  return finish("tversky", cases);
}
