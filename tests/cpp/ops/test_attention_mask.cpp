// The math of attention_mask against central differences; its kernels against the math in float64.
#include <limits>

#include "kernels/attention_mask.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::attention_mask;

int cases = 0;

// X and Z are what the tensors hold; KX and KZ what the kernel is compiled for. With `spoil` one
// voxel of the logits is NaN. Returns the masked images and the gradients.
template <class A, class X, class Z, class KX, class KZ>
Doubles run(int64_t n, Layout layout, bool spoil = false) {
  ++cases;
  const int64_t images = 3;
  Random random(uint64_t(n) + 5);
  Doubles zs = random.several(images * n, -4, 4);
  if (spoil) zs[n + n / 2] = std::numeric_limits<double>::quiet_NaN();
  const TestTensor<X> x(images, 1, n, layout, random.several(images * n, 0, 1));
  const TestTensor<Z> z(images, 1, n, layout, zs);
  const TestTensor<X> grad(images, 2, n, layout, random.several(2 * images * n, -1, 1));

  Doubles masks(2 * images * n), x_grads, z_grads;
  const Doubles xs = x.values(), gs = grad.values();
  zs = z.values();
  for (int64_t b = 0; b < images; ++b) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t background = 2 * b * n + i, foreground = background + n;
      const auto pair = masked(xs[b * n + i], zs[b * n + i]);
      masks[background] = pair.background;
      masks[foreground] = pair.foreground;
      const Pair<double> g{gs[background], gs[foreground]};
      x_grads.push_back(grad_image(zs[b * n + i], g));
      z_grads.push_back(grad_logit(xs[b * n + i], zs[b * n + i], g));
    }
  }

  const Launch launch;
  const TestTensor<X> result(images, 2, n, layout);
  forward<A>(launch, x.template input<KX>(), z.template input<KZ>(), images, n,
             result.template output<KX>());
  const TestTensor<X> x_grad(images, 1, n, layout), x_alone(images, 1, n, layout);
  const TestTensor<Z> z_grad(images, 1, n, layout), z_alone(images, 1, n, layout);
  const auto differentiate = [&]<bool kImage, bool kLogits>(const auto& x_out, const auto& z_out) {
    backward<A, kImage, kLogits>(launch, grad.template input<KX>(), x.template input<KX>(),
                                 z.template input<KZ>(), images, n, x_out.template output<KX>(),
                                 z_out.template output<KZ>());
  };
  differentiate.template operator()<true, true>(x_grad, z_grad);
  differentiate.template operator()<true, false>(x_alone, z_grad);
  differentiate.template operator()<false, true>(x_grad, z_alone);
  CHECK(close(result.values(), masks, tolerance<A, X>()));
  CHECK(close(x_grad.values(), x_grads, tolerance<A, X>()));
  CHECK(close(z_grad.values(), z_grads, tolerance<A, Z>()));
  CHECK(same_bits(x_alone.values(), x_grad.values()));
  CHECK(same_bits(z_alone.values(), z_grad.values()));
  // One number for each channel, of stride 0, is the same as the numbers written out.
  if constexpr (std::is_same_v<X, KX>) {
    if (n > 0) {
      const Doubles few = random.several(2 * images, -1, 1);
      Doubles written;
      for (const double g : few) written.insert(written.end(), size_t(n), g);
      const TestTensor<X> numbers(images, 2, 1, Layout::kContiguous, few);
      const TestTensor<X> all(images, 2, n, Layout::kContiguous, written);
      const TestTensor<X> x_few(images, 1, n, layout), x_all(images, 1, n, layout);
      const TestTensor<Z> z_few(images, 1, n, layout), z_all(images, 1, n, layout);
      const auto with = [&](const auto& grads, const auto& x_out, const auto& z_out) {
        backward<A, true, true>(launch, grads, x.template input<KX>(), z.template input<KZ>(),
                                images, n, x_out.template output<KX>(),
                                z_out.template output<KZ>());
      };
      const Input<X> plain = numbers.template input<X>();
      with(Input<Repeated<X>>{plain.data, plain.strides}, x_few, z_few);
      with(all.template input<KX>(), x_all, z_all);
      CHECK(same_bits(x_few.values(), x_all.values()));
      CHECK(same_bits(z_few.values(), z_all.values()));
    }
  }
  CHECK(result.gaps_untouched() && x_grad.gaps_untouched() && z_grad.gaps_untouched());
  Doubles results = result.values();
  for (const Doubles& more : {x_grad.values(), z_grad.values()})
    results.insert(results.end(), more.begin(), more.end());
  return results;
}

template <class A, class X, class Z, class KX = X, class KZ = Z>
void test() {
  for (const int64_t n : sizes()) {
    const Doubles contiguous = run<A, X, Z, KX, KZ>(n, Layout::kContiguous);
    if (n < 257) continue;
    for (const Layout layout : kLayouts)
      CHECK(same_bits((run<A, X, Z, KX, KZ>(n, layout)), contiguous));
    run<A, X, Z, KX, KZ>(n, Layout::kContiguous, true);
  }
}

// Planar or interleaved, whatever of it is aligned goes 16 bytes at a time.
void test_wide() {
  const int64_t n = 2 * Chunking<4, Launch::kThreads>::kVoxels + 8;
  for (const Layout layout : {Layout::kContiguous, Layout::kChannelsLast, Layout::kPadded}) {
    CHECK(moves_wide([&] { run<float, float, float, float, float>(n, layout); }));
    CHECK(moves_wide([&] { run<float, Half, Half, Half, Half>(n, layout); }));
  }
}

constexpr float kQuietNaNf = std::numeric_limits<float>::quiet_NaN();

void test_math() {
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
  test_math();
  test<float, float, float>();
  test<float, BFloat16, BFloat16>();
  test<float, float, Half>();
  test<float, Half, float, Floating, Floating>();
  test<double, double, float, Floating, Floating>();
  test_wide();
  return finish("attention_mask", cases);
}
