// The kernel of pool_batch against math/pool_batch.h in float64, and against plain copies where the
// map is a shift or a mirror.
#include "kernels/pool_batch.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::pool_batch;

int cases = 0;

// h of a slice at a point, by the definition: the sum over all pixels.
double at_point(const double* stored, const Shape& s, double slope, double intercept, double y,
                double x) {
  double h = ct_window::kAir;
  for (int64_t r = 0; r < s.height; ++r) {
    for (int64_t c = 0; c < s.width; ++c) {
      const double weight =
          std::max(0.0, 1 - std::abs(y - double(r))) * std::max(0.0, 1 - std::abs(x - double(c)));
      if (weight == 0) continue;
      const double value =
          ct_window::rescale<false>(stored[r * s.width + c], slope, intercept + ct_window::kOffset);
      h += weight * (value - ct_window::kAir);
    }
  }
  return h;
}

template <class O>
void run(Shape s, ct_window::Function function, const Doubles& theta, bool with_masks) {
  ++cases;
  Random random(uint64_t(s.out_width) + 29);
  const int64_t pixels = s.height * s.width;
  const TestTensor<int16_t> pool(s.pool, 1, pixels, Layout::kContiguous,
                                 random.several(s.pool * pixels, -200, 300));
  Doubles mask_values = random.several(s.pool * pixels, 0, 1);
  for (double& m : mask_values) m = m < 0.3 ? 200 : 0;
  const TestTensor<uint8_t> masks(s.pool, 1, pixels, Layout::kContiguous, mask_values);
  // The last index is outside the pool.
  Doubles index_values(s.batch);
  for (int64_t b = 0; b < s.batch; ++b) index_values[b] = double(b % s.pool);
  index_values.back() = double(s.pool);
  const TestTensor<int64_t> indices(s.batch, 1, 1, Layout::kSpaced, index_values);
  const TestTensor<float> matrices(s.batch, 2, 3, Layout::kContiguous, theta);
  const TestTensor<float> slopes(s.batch, 1, 1, Layout::kContiguous,
                                 random.several(s.batch, 1, 1.2));
  const TestTensor<double> intercepts(s.batch, 1, 1, Layout::kSpaced,
                                      random.several(s.batch, -20, 20));
  s.windows = 2;
  Doubles window_values;
  for (int64_t b = 0; b < s.batch; ++b)
    for (const double number : {40.0, 80.0 + double(b), 60.0, 200.0})
      window_values.push_back(number);
  const TestTensor<float> windows(s.batch, s.windows, 2, Layout::kContiguous, window_values);
  const TestTensor<O> images(s.batch, s.windows, s.out_pixels(), Layout::kContiguous);
  const TestTensor<uint8_t> masks_out(s.batch, 1, s.out_pixels(), Layout::kContiguous);

  forward(Launch(), pool.input().data, with_masks ? masks.input().data : nullptr,
          indices.input().data, indices.input().strides.image, matrices.template input<Number>(),
          slopes.template input<Number>(), intercepts.template input<Number>(),
          windows.template input<Number>(), s, function, images.template output<Floating>(),
          with_masks ? masks_out.output().data : nullptr);

  const Doubles stored = pool.values(), slope = slopes.values(), intercept = intercepts.values();
  const Doubles matrix = matrices.values(), actual = images.values(), chosen = masks_out.values();
  bool near = true, right = true;
  for (int64_t b = 0; b < s.batch; ++b) {
    const Map m = map(&matrix[6 * b], s.height, s.width, s.out_height, s.out_width);
    const bool outside = index_values[b] >= double(s.pool);
    const double* const slice = &stored[outside ? 0 : int64_t(index_values[b]) * pixels];
    for (int64_t pixel = 0; pixel < s.out_pixels(); ++pixel) {
      const double i = double(pixel / s.out_width), j = double(pixel % s.out_width);
      const double x = m.x_j * j + m.x_i * i + m.x_0, y = m.y_j * j + m.y_i * i + m.y_0;
      const double h = at_point(slice, s, slope[b], intercept[b], y, x);
      for (int64_t k = 0; k < s.windows; ++k) {
        const auto w =
            ct_window::window(window_values[(b * s.windows + k) * 2],
                              window_values[(b * s.windows + k) * 2 + 1], function, false);
        const double expected = function == ct_window::Function::kSigmoid
                                    ? ct_window::sigmoidal(h, w)
                                    : ct_window::linear<false>(h, w);
        const double is = actual[(b * s.windows + k) * s.out_pixels() + pixel];
        // Positions are float: 2e-6 of a pixel here, times a step of some 500 HU, over the width.
        near &= outside ? std::isnan(is) : std::abs(is - expected) <= 5e-5 + tolerance<float, O>();
      }
      const double row = std::nearbyint(y), column = std::nearbyint(x);
      const bool tie =
          std::abs(std::abs(y - row) - 0.5) < 1e-5 || std::abs(std::abs(x - column) - 0.5) < 1e-5;
      const bool inside =
          row >= 0 && row < double(s.height) && column >= 0 && column < double(s.width);
      const bool expected =
          !outside && inside &&
          mask_values[int64_t(index_values[b]) * pixels + int64_t(row) * s.width + int64_t(column)];
      if (with_masks && !tie) right &= (chosen[b * s.out_pixels() + pixel] == 1) == expected;
    }
  }
  CHECK(near);
  CHECK(right);
  if (with_masks) {
    CHECK(std::all_of(chosen.begin(), chosen.end(), [](double m) { return m == 0 || m == 1; }));
  }
}

template <class O>
void test() {
  const Doubles still{1, 0, 0, 0, 1, 0}, mirrored{-1, 0, 0, 0, 1, 0},
      turned{0.9, -0.4, 0.1, 0.5, 0.8, -0.2}, far{1, 0, 40, 0, 1, -1e30};
  Doubles theta;
  for (const Doubles& one : {still, mirrored, turned, far, turned})
    theta.insert(theta.end(), one.begin(), one.end());
  for (const Shape& shape : {Shape{3, 5, 16, 16, 0, 16, 16}, Shape{2, 5, 13, 17, 0, 9, 11},
                             Shape{2, 5, 2, 2, 0, 3, 2}}) {
    run<O>(shape, ct_window::Function::kLinear, theta, true);
    run<O>(shape, ct_window::Function::kSigmoid, theta, false);
  }
}

}  // namespace

int main() {
  test<float>();
  test<BFloat16>();
  test<double>();
  return finish("pool_batch", cases);
}
