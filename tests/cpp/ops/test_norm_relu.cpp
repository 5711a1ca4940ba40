// The math of norm_relu against central differences; its kernels against the math in float64.
#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/norm_relu.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::norm_relu;

int cases = 0;

constexpr double kEps = 1e-5;

struct Size {
  int64_t images, channels, height, width;

  int64_t pixels() const { return images * height * width; }
};

// Channels-last: pixels of the channels, behind one another or with others between them, and
// aligned or not.
template <class T>
class Image {
 public:
  Image(int64_t pixels, int64_t channels, bool sliced)
      : pixels_(pixels),
        channels_(channels),
        stride_(sliced ? channels + 2 * kVoxelsOf<T> : channels),
        offset_(sliced ? kVoxelsOf<T> : 0),
        memory_(sizeof(T) * size_t(pixels * stride_)) {}

  Image(int64_t pixels, int64_t channels, bool sliced, const Doubles& values)
      : Image(pixels, channels, sliced) {
    std::vector<unsigned char> bytes = memory_.read();
    for (int64_t i = 0; i < pixels * channels; ++i) {
      const T element = from_double<T>(values[size_t(i)]);
      std::memcpy(&bytes[at(i)], &element, sizeof(T));
    }
    memory_.write(bytes);
  }

  Doubles values() const {
    const std::vector<unsigned char> bytes = memory_.read();
    Doubles result;
    for (int64_t i = 0; i < pixels_ * channels_; ++i) {
      T element;
      std::memcpy(&element, &bytes[at(i)], sizeof(T));
      result.push_back(to_double(element));
    }
    return result;
  }

  bool gaps_untouched() const {
    std::vector<unsigned char> bytes = memory_.read();
    for (int64_t i = 0; i < pixels_ * channels_; ++i)
      std::memset(&bytes[at(i)], Memory::kPoison, sizeof(T));
    return std::all_of(bytes.begin(), bytes.end(),
                       [](unsigned char byte) { return byte == Memory::kPoison; });
  }

  Pixels<const T> input() const { return {data(), stride_}; }
  Pixels<T> output() const { return {data(), stride_}; }

 private:
  T* data() const { return reinterpret_cast<T*>(memory_.data()) + offset_; }
  size_t at(int64_t i) const {
    return sizeof(T) * size_t(offset_ + i / channels_ * stride_ + i % channels_);
  }

  int64_t pixels_, channels_, stride_, offset_;
  Memory memory_;
};

// The numbers of each channel, where kernels read them.
template <class A>
class Numbers {
 public:
  explicit Numbers(const Doubles& values) : memory_(sizeof(A) * values.size()) {
    std::vector<unsigned char> bytes(sizeof(A) * values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      const A value = A(values[i]);
      std::memcpy(&bytes[i * sizeof(A)], &value, sizeof(A));
      rounded.push_back(double(value));
    }
    memory_.write(bytes);
  }

  const A* data() const { return reinterpret_cast<const A*>(memory_.data()); }

  Doubles rounded;

 private:
  Memory memory_;
};

template <class A>
Doubles doubles(const TestArray<A>& array) {
  const std::vector<A> values = array.values();
  return Doubles(values.begin(), values.end());
}

enum class Pool { kNone, kBoth, kPooled };  // which gradients arrive

template <class A, class T, bool kRelu, bool kBatch>
Doubles run(Size size, Pool pool, bool sliced, bool spoil = false) {
  ++cases;
  const auto [images, channels, height, width] = size;
  const int64_t pixels = size.pixels();
  const bool pooling = pool != Pool::kNone;
  Random random(uint64_t(pixels + channels));
  Doubles values = random.several(pixels * channels, -2, 5);
  if (spoil) values[size_t(pixels * channels / 2)] = std::numeric_limits<double>::quiet_NaN();
  const Image<T> input(pixels, channels, sliced, values);
  const Numbers<A> weight(random.several(channels, -1, 2)), bias(random.several(channels, -1, 1));
  const Shape shape{channels, pixels, width};
  const Launch launch;

  // Moments.
  const TestArray<double> moment_slots(slots<T, Launch>(shape, false));
  const TestArray<A> means(channels), variances(channels);
  moments<A, T>(launch, input.input(), shape, moment_slots.data(), means.data(), variances.data());
  const Doubles x = input.values();
  Doubles mean(static_cast<size_t>(channels)), variance(static_cast<size_t>(channels));
  for (size_t i = 0; i < x.size(); ++i) mean[i % mean.size()] += x[i] / double(pixels);
  for (size_t i = 0; i < x.size(); ++i) {
    const double distance = x[i] - mean[i % mean.size()];
    variance[i % mean.size()] += distance * distance / double(pixels);
  }
  if (pixels > 0) {
    CHECK(close(doubles(means), mean, tolerance<A, A>()));
    CHECK(close(doubles(variances), variance, tolerance<A, A>()));
  }

  const Parameters<A> parameters{weight.data(), bias.data(), means.data(), variances.data(),
                                 A(kEps)};
  const Doubles used_mean = doubles(means), used_variance = doubles(variances);
  const auto scale = [&](size_t c) {
    return weight.rounded[c] * inverse_deviation(used_variance[c], kEps);
  };
  Doubles y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % mean.size();
    const double z = normalised(x[i], used_mean[c], scale(c), bias.rounded[c]);
    y[i] = kRelu ? relu(z) : z;
  }
  // Where in `x` the four values of window w lie, channel c.
  const auto corners = [&](int64_t w, int64_t c) {
    const int64_t half = width / 2, a = w / half * 2 * width + w % half * 2;
    std::array<size_t, 4> result;
    int64_t next = 0;
    for (const int64_t pixel : {a, a + 1, a + width, a + width + 1})
      result[size_t(next++)] = size_t(pixel * channels + c);
    return result;
  };
  const int64_t windows = pooling ? pixels / 4 : 0;

  // Forward.
  const Image<T> output(pixels, channels, sliced), pooled(windows, channels, false);
  Doubles results;
  if (pooling) {
    forward_pool<A, T>(launch, input.input(), shape, parameters, output.output(), pooled.output());
    Doubles expected;
    for (int64_t w = 0; w < windows; ++w) {
      for (int64_t c = 0; c < channels; ++c) {
        const auto at = corners(w, c);
        expected.push_back(largest(Window<double>{y[at[0]], y[at[1]], y[at[2]], y[at[3]]}));
      }
    }
    CHECK(close(pooled.values(), expected, tolerance<A, T>()));
  } else {
    forward<kRelu, A, T>(launch, input.input(), shape, parameters, output.output());
  }
  CHECK(close(output.values(), y, tolerance<A, T>()));
  CHECK(output.gaps_untouched());

  // Backward.
  const Image<T> grad(pixels, channels, sliced, random.several(pixels * channels, -200, 200));
  const Image<T> grad_pooled(windows, channels, false, random.several(windows * channels, -99, 99));
  GradientViews<T> views = {};
  Doubles g(x.size());
  if (pool != Pool::kPooled) {
    views.output = grad.input();
    g = grad.values();
  }
  if (pooling) {
    views.pooled = grad_pooled.input();
    const Doubles of_pooled = grad_pooled.values();
    for (int64_t w = 0; w < windows; ++w) {
      for (int64_t c = 0; c < channels; ++c) {
        const auto at = corners(w, c);
        const auto r = route(Window<double>{y[at[0]], y[at[1]], y[at[2]], y[at[3]]},
                             of_pooled[size_t(w * channels + c)]);
        g[at[0]] += r.a;
        g[at[1]] += r.b;
        g[at[2]] += r.c;
        g[at[3]] += r.d;
      }
    }
  }
  Doubles exact_sums(2 * mean.size()), exact_grad(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % mean.size();
    if (kRelu) g[i] = through_relu(y[i], g[i]);
    exact_sums[c] += g[i];
    exact_sums[mean.size() + c] +=
        g[i] * (x[i] - used_mean[c]) * inverse_deviation(used_variance[c], kEps);
  }
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % mean.size();
    const auto through = gradient(exact_sums[c], exact_sums[mean.size() + c], weight.rounded[c],
                                  inverse_deviation(used_variance[c], kEps), double(pixels));
    exact_grad[i] = scale(c) * g[i];
    if (kBatch) exact_grad[i] -= through.shift + (x[i] - used_mean[c]) * through.slope;
  }
  const TestArray<double> sum_slots(slots<T, Launch>(shape, pooling)), totals(2 * channels);
  sums<kRelu, A, T>(launch, views, input.input(), shape, parameters, sum_slots.data(),
                    totals.data());
  CHECK(close(totals.values(), exact_sums, 4 * tolerance<A, A>()));
  const Image<T> grad_input(pixels, channels, false);
  backward<kRelu, kBatch, A, T>(launch, views, input.input(), shape, parameters, totals.data(),
                                grad_input.output());
  CHECK(close(grad_input.values(), exact_grad, 4 * tolerance<A, T>()));

  for (const Doubles& more : {doubles(means), doubles(variances), output.values(), pooled.values(),
                              totals.values(), grad_input.values()})
    results.insert(results.end(), more.begin(), more.end());
  return results;
}

template <class A, class T>
void test() {
  constexpr int64_t kWidth = kVoxelsOf<T>;
  const std::vector<Size> all = {{0, 3, 2, 2},
                                 {2, 1, 2, 2},
                                 {1, 3, 4, 6},
                                 {2, kWidth, 8, 18},
                                 {1, 5 * kWidth, 6, 10},
                                 {1, 5 * kWidth + 1, 6, 10},
                                 {1, (Launch::kThreads + 3) * kWidth, 2, 4}};
  for (const Size size : all) {
    const Doubles dense = run<A, T, true, true>(size, Pool::kBoth, false);
    CHECK(same_bits((run<A, T, true, true>(size, Pool::kBoth, true)), dense));
    run<A, T, true, false>(size, Pool::kPooled, false);
    const Doubles flat = run<A, T, true, true>(size, Pool::kNone, false);
    CHECK(same_bits((run<A, T, true, true>(size, Pool::kNone, true)), flat));
    run<A, T, false, true>(size, Pool::kNone, false);
    run<A, T, false, false>(size, Pool::kNone, true);
  }
  run<A, T, true, true>({2, 7, 8, 18}, Pool::kBoth, false, true);
}

// What stands beside, into the first channels.
template <class T>
void test_copy() {
  for (const int64_t channels : {int64_t(3), int64_t(2 * kVoxelsOf<T>)}) {
    ++cases;
    const int64_t pixels = 70;
    const Image<T> from(pixels, channels, true, Random(3).several(pixels * channels, -9, 9));
    const Image<T> to(pixels, channels, true);
    copy<T>(Launch(), from.input(), Shape{channels, pixels, 7}, to.output());
    CHECK(same_bits(to.values(), from.values()));
    CHECK(to.gaps_untouched());
  }
}

void test_wide() {
  const Size size{1, 64, 16, 32};
  CHECK(moves_wide([&] { run<float, float, true, true>(size, Pool::kBoth, false); }));
  CHECK(moves_wide([&] { run<float, Half, true, true>(size, Pool::kNone, true); }));
}

void test_math() {
  // The gradient of a channel's values through its own mean and variance.
  std::vector<double> x{0.3, -1.2, 2.5, 0.9, 1.7};
  const std::vector<double> weights{1, -2, 0.5, 3, -1};  // of the y in a sum
  const double gamma = 1.4, beta = 0.3, n = double(x.size());
  const auto moments_of = [&] {
    double mean = 0, squares = 0;
    for (size_t i = 0; i < x.size(); ++i) Merge<double>(double(i), 1)(x[i], 0, mean, squares);
    return std::pair(mean, squares / n);
  };
  const auto total = [&](double g, double b) {
    const auto [mean, variance] = moments_of();
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i)
      sum += weights[i] * relu(normalised(x[i], mean, g * inverse_deviation(variance, kEps), b));
    return sum;
  };
  const auto [mean, variance] = moments_of();
  CHECK_NEAR(mean, 0.84, 1e-14);
  CHECK_NEAR(variance, 1.5904, 1e-14);
  const double inverse = inverse_deviation(variance, kEps);
  std::vector<double> g;
  double sum = 0, with_x = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    g.push_back(through_relu(normalised(x[i], mean, gamma * inverse, beta), weights[i]));
    sum += g[i];
    with_x += g[i] * (x[i] - mean) * inverse;
  }
  CHECK_NEAR(sum, derivative([&](double b) { return total(gamma, b); }, beta), 1e-8);
  CHECK_NEAR(with_x, derivative([&](double a) { return total(a, beta); }, gamma), 1e-8);
  const auto through = gradient(sum, with_x, gamma, inverse, n);
  for (size_t i = 0; i < x.size(); ++i) {
    const double found = gamma * inverse * g[i] - through.shift - (x[i] - mean) * through.slope;
    const double before = x[i];
    const auto f = [&](double value) {
      x[i] = value;
      const double result = total(gamma, beta);
      x[i] = before;
      return result;
    };
    CHECK_NEAR(found, derivative(f, before), 1e-8);
  }

  // The first of equal values, the last of several NaN.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto place = [](Window<double> y) {
    const auto r = route(y, 1.0);
    return r.a + 2 * r.b + 4 * r.c + 8 * r.d;
  };
  CHECK(place({1, 1, 1, 1}) == 1);
  CHECK(place({0, 1, 1, 0}) == 2);
  CHECK(place({0, 1, 2, 2}) == 4);
  CHECK(place({0, 1, 2, 3}) == 8);
  CHECK(place({0, nan, 2, nan}) == 8);
  CHECK(place({nan, nan, 2, 3}) == 2);
  CHECK(std::isnan(largest(Window<double>{nan, 1, 2, 3})));
  CHECK(largest(Window<double>{3, 1, 2, 3}) == 3);
  CHECK(std::isnan(relu(nan)) && relu(-1.0) == 0 && through_relu(nan, 2.0) == 2);
}

}  // namespace

int main() {
  test_math();
  test<float, float>();
  test<float, Half>();
  test<float, BFloat16>();
  test<double, double>();
  test_copy<float>();
  test_copy<BFloat16>();
  test_wide();
  return finish("norm_relu", cases);
}
