// Strong views on the CPU, a patch of an image after the other. See math/strong_view.h.
//
// A patch is loaded with the pixels around it that the blur reaches, beyond an edge those at the
// edge, and stays in the second-level cache. Each of its rows is blurred downwards and then along
// itself, in a line of the first-level cache, where the point-wise rest is done.
#include "ops/strong_view.h"

#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace strong_view;

constexpr int64_t kRows = 32;  // of a patch; its columns are kTile at most
constexpr int64_t kLine = kTile + 2 * kMostRadius;

template <class A>
ICHFAST_INLINE void clip_run(const A* in, int64_t n, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = to_unit(in[i]);
}

ICHFAST_SIMD void clip(const float* in, int64_t n, float* out) {
  clip_run(in, n, out);
}

void clip(const double* in, int64_t n, double* out) {
  clip_run(in, n, out);
}

// Σ_d w_d x_d of the pixels that are `step` apart.
template <int kRadius, class A>
ICHFAST_INLINE void blur_radius(const A* in, int64_t step, const A* weights, int64_t n, A* out) {
  A w[kRadius + 1];
  for (int d = 0; d <= kRadius; ++d) w[d] = weights[d];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    A sum = w[0] * in[i];
#pragma GCC unroll 9
    for (int d = 1; d <= kRadius; ++d) sum += w[d] * (in[i - d * step] + in[i + d * step]);
    out[i] = sum;
  }
}

// The radius is known to the compiler: a loop over it inside that over pixels stays scalar.
template <class A>
ICHFAST_INLINE void blur_run(const A* in, int64_t step, const View<A>& view, int64_t n, A* out) {
  const A* const w = view.weights;
  static_assert(kMostRadius == 9);
  switch (view.radius) {
    case 1:
      return blur_radius<1>(in, step, w, n, out);
    case 2:
      return blur_radius<2>(in, step, w, n, out);
    case 3:
      return blur_radius<3>(in, step, w, n, out);
    case 4:
      return blur_radius<4>(in, step, w, n, out);
    case 5:
      return blur_radius<5>(in, step, w, n, out);
    case 6:
      return blur_radius<6>(in, step, w, n, out);
    case 7:
      return blur_radius<7>(in, step, w, n, out);
    case 8:
      return blur_radius<8>(in, step, w, n, out);
    case 9:
      return blur_radius<9>(in, step, w, n, out);
  }
}

ICHFAST_SIMD void blur(const float* in, int64_t step, const View<float>& view, int64_t n,
                       float* out) {
  blur_run(in, step, view, n, out);
}

void blur(const double* in, int64_t step, const View<double>& view, int64_t n, double* out) {
  blur_run(in, step, view, n, out);
}

template <bool kPower, bool kNoise, class A>
ICHFAST_INLINE void finish_as(const A* in, uint32_t first, const View<A>& view, int64_t n, A* out) {
  const View<A> v = view;
  const uint32_t count = uint32_t(n);
#pragma omp simd
  for (uint32_t i = 0; i < count; ++i) out[i] = pixel<kPower, kNoise>(in[i], first + i, v);
}

template <class A>
ICHFAST_INLINE void finish_run(const A* in, uint32_t first, const View<A>& view, int64_t n,
                               A* out) {
  const bool power = view.gamma != A(1), noise = view.noise != A(0);
  if (power && noise) return finish_as<true, true>(in, first, view, n, out);
  if (power) return finish_as<true, false>(in, first, view, n, out);
  if (noise) return finish_as<false, true>(in, first, view, n, out);
  finish_as<false, false>(in, first, view, n, out);
}

// Pixels first … first + n − 1 of the image.
ICHFAST_SIMD void finish(const float* in, uint32_t first, const View<float>& view, int64_t n,
                         float* out) {
  finish_run(in, first, view, n, out);
}

void finish(const double* in, uint32_t first, const View<double>& view, int64_t n, double* out) {
  finish_run(in, first, view, n, out);
}

template <class A>
std::vector<View<A>> read_views(const Arguments& in) {
  std::vector<View<A>> views;
  for (int64_t b = 0; b < in.image.size(0); ++b) {
    const double gamma = number_at(in.gamma, b * in.gamma.stride(0));
    const double blur = number_at(in.blur, b * in.blur.stride(0));
    const double noise = number_at(in.noise, b * in.noise.stride(0));
    STD_TORCH_CHECK(valid(gamma, blur, noise), "strong_view: image ", b, " has gamma ", gamma,
                    ", blur ", blur, " and noise ", noise,
                    "; gamma must be above 0, blur from 0 to 3 pixels and noise 0 or more");
    views.push_back(
        view<A>(gamma, blur, noise, in.seed.const_data_ptr<int64_t>()[b * in.seed.stride(0)]));
  }
  return views;
}

struct Patch {
  int64_t image, row, rows, column, columns;
};

template <class A>
class Painter {
 public:
  Painter(const Arguments& in, Tensor& result)
      : views_(read_views<A>(in)),
        source_(in.image),
        sink_(result),
        height_(in.image.size(2)),
        width_(in.image.size(3)) {}

  // `buffer` has room for kLine numbers (kRows + 2 radii and two more) times.
  void paint(const Patch& patch, A* buffer) const {
    const View<A>& view = views_[patch.image];
    const int64_t radius = view.radius, rows = patch.rows + 2 * radius;
    A* const line = buffer + rows * kLine;
    for (int64_t k = 0; k < rows; ++k)
      load_row(patch, std::clamp<int64_t>(patch.row + k - radius, 0, height_ - 1), radius, line,
               buffer + k * kLine);
    for (int64_t k = 0; k < patch.rows; ++k) {
      const Tile tile{patch.image, 0, 0, 0, (patch.row + k) * width_ + patch.column, patch.columns};
      const A* x = buffer + (k + radius) * kLine;
      if (radius > 0) {
        blur(x, kLine, view, patch.columns + 2 * radius, line);
        blur(line + radius, 1, view, patch.columns, line + kLine);
        x = line + kLine;
      }
      A* const out = sink_.place(tile, line);
      finish(x, uint32_t(tile.first), view, patch.columns, out);
      sink_.put(tile, out);
    }
  }

 private:
  // The patch's columns of a row and `radius` more at each side.
  void load_row(const Patch& patch, int64_t row, int64_t radius, A* converted, A* out) const {
    const int64_t from = std::max<int64_t>(patch.column - radius, 0);
    const int64_t to = std::min(patch.column + patch.columns + radius, width_);
    const Tile tile{patch.image, 0, 0, 0, row * width_ + from, to - from};
    A* const first = out + (from - (patch.column - radius));
    A* const end = first + tile.n;
    clip(source_.read(tile, converted), tile.n, first);
    std::fill(out, first, *first);
    std::fill(end, out + patch.columns + 2 * radius, end[-1]);
  }

  std::vector<View<A>> views_;
  Source<A> source_;
  Sink<A> sink_;
  int64_t height_, width_;
};

template <class A>
void forward(const Arguments& arguments, Tensor& result) {
  const Painter<A> painter(arguments, result);
  const int64_t height = result.size(2), width = result.size(3);
  const int64_t down = (height + kRows - 1) / kRows, across = (width + kTile - 1) / kTile;
  const int64_t grain =
      std::max<int64_t>(1, kGrain / (kRows * std::clamp<int64_t>(width, 1, kTile)));
  torch::stable::parallel_for(
      0, result.size(0) * down * across, grain, [&](int64_t begin, int64_t end) {
        std::vector<A> buffer((kRows + 2 * kMostRadius + 2) * kLine);
        for (int64_t k = begin; k < end; ++k) {
          const int64_t row = k / across % down * kRows, column = k % across * kTile;
          painter.paint({k / (down * across), row, std::min(kRows, height - row), column,
                         std::min(kTile, width - column)},
                        buffer.data());
        }
      });
}

void forward_cpu(const Arguments& arguments, Tensor& result) {
  (is_double(arguments.image) ? forward<double> : forward<float>)(arguments, result);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("strong_view", TORCH_BOX(&forward_op<forward_cpu>));
}

}  // namespace ichfast
