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

constexpr int64_t kRows = 32, kColumns = 256;  // of a patch
constexpr int64_t kPaddedRows = kRows + 2 * kMostReach;
constexpr int64_t kLine = kColumns + 2 * kMostReach;

// What a patch passes through.
template <class A>
struct Buffers {
  A padded[kPaddedRows][kLine];
  A converted[kLine], down[kLine], blurred[kColumns], normal[kColumns], result[kColumns];
};

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

template <class A>
struct Blur {
  int reach;
  A weights[kMostReach + 1];
};

// Σ_d w_d x_d of the pixels that are `step` apart.
template <int kReach, class A>
ICHFAST_INLINE void blur_reach(const A* in, int64_t step, const A* weights, int64_t n, A* out) {
  A w[kReach + 1];
  for (int d = 0; d <= kReach; ++d) w[d] = weights[d];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    A sum = w[0] * in[i];
#pragma GCC unroll 9
    for (int d = 1; d <= kReach; ++d) sum += w[d] * (in[i - d * step] + in[i + d * step]);
    out[i] = sum;
  }
}

// The reach is known to the compiler: a loop over it inside that over pixels stays scalar.
template <class A>
ICHFAST_INLINE void blur_run(const A* in, int64_t step, const Blur<A>& blur, int64_t n, A* out) {
  const A* const w = blur.weights;
  static_assert(kMostReach == 9);
  switch (blur.reach) {
    case 1:
      return blur_reach<1>(in, step, w, n, out);
    case 2:
      return blur_reach<2>(in, step, w, n, out);
    case 3:
      return blur_reach<3>(in, step, w, n, out);
    case 4:
      return blur_reach<4>(in, step, w, n, out);
    case 5:
      return blur_reach<5>(in, step, w, n, out);
    case 6:
      return blur_reach<6>(in, step, w, n, out);
    case 7:
      return blur_reach<7>(in, step, w, n, out);
    case 8:
      return blur_reach<8>(in, step, w, n, out);
    case 9:
      return blur_reach<9>(in, step, w, n, out);
  }
}

ICHFAST_SIMD void blur_line(const float* in, int64_t step, const Blur<float>& blur, int64_t n,
                            float* out) {
  blur_run(in, step, blur, n, out);
}

void blur_line(const double* in, int64_t step, const Blur<double>& blur, int64_t n, double* out) {
  blur_run(in, step, blur, n, out);
}

// Of n pixels from `first` on, and one more where n is odd.
template <class A>
ICHFAST_INLINE void draw_run(uint32_t first, const View<A>& view, int64_t n, A* out) {
  const Key radial = view.radial, angular = view.angular;
  const uint32_t pairs = uint32_t(n + 1) / 2;
#pragma omp simd
  for (uint32_t i = 0; i < pairs; ++i) {
    const Pair<A> z = normal_pair<A>(first + 2 * i, radial, angular);
    out[2 * i] = z.first;
    out[2 * i + 1] = z.second;
  }
}

ICHFAST_SIMD void draw(uint32_t first, const View<float>& view, int64_t n, float* out) {
  draw_run(first, view, n, out);
}

void draw(uint32_t first, const View<double>& view, int64_t n, double* out) {
  draw_run(first, view, n, out);
}

template <bool kPower, bool kNoise, class A>
ICHFAST_INLINE void finish_as(const A* in, const A* normal, const View<A>& view, int64_t n,
                              A* out) {
  const View<A> v = view;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    out[i] = pixel<kPower, kNoise>(in[i], kNoise ? normal[i] : A(0), v);
}

template <class A>
ICHFAST_INLINE void finish_run(const A* in, const A* normal, const View<A>& view, int64_t n,
                               A* out) {
  const bool power = view.gamma != A(1), noise = view.noise != A(0);
  if (power && noise) return finish_as<true, true>(in, normal, view, n, out);
  if (power) return finish_as<true, false>(in, normal, view, n, out);
  if (noise) return finish_as<false, true>(in, normal, view, n, out);
  finish_as<false, false>(in, normal, view, n, out);
}

ICHFAST_SIMD void finish(const float* in, const float* normal, const View<float>& view, int64_t n,
                         float* out) {
  finish_run(in, normal, view, n, out);
}

void finish(const double* in, const double* normal, const View<double>& view, int64_t n,
            double* out) {
  finish_run(in, normal, view, n, out);
}

template <class A>
struct Recipe {
  Blur<A> blur;
  View<A> view;
};

template <class A>
std::vector<Recipe<A>> read_recipes(const Arguments& in) {
  std::vector<Recipe<A>> recipes;
  for (int64_t b = 0; b < in.image.size(0); ++b) {
    const double gamma = number_at(in.gamma, b * in.gamma.stride(0));
    const double sigma = number_at(in.blur, b * in.blur.stride(0));
    const double noise = number_at(in.noise, b * in.noise.stride(0));
    STD_TORCH_CHECK(valid(gamma, sigma, noise), "strong_view: image ", b, " has gamma ", gamma,
                    ", blur ", sigma, " and noise ", noise,
                    "; gamma must be above 0, blur from 0 to ", kMostBlur,
                    " pixels and noise 0 or more");
    const int64_t seed = in.seed.const_data_ptr<int64_t>()[b * in.seed.stride(0)];
    Recipe<A> recipe{{reach(sigma), {}}, view<A>(gamma, noise, seed)};
    const double sum = sum_of_weights(sigma);
    for (int d = 0; d <= recipe.blur.reach; ++d)
      recipe.blur.weights[d] = A(relative_weight(d, sigma) / sum);
    recipes.push_back(recipe);
  }
  return recipes;
}

struct Patch {
  int64_t image, row, rows, column, columns;
};

template <class A>
class Painter {
 public:
  Painter(const Arguments& in, Tensor& result)
      : recipes_(read_recipes<A>(in)),
        source_(in.image),
        sink_(result),
        height_(in.image.size(2)),
        width_(in.image.size(3)) {}

  void paint(const Patch& patch, Buffers<A>& buffers) const {
    const auto& [blur, view] = recipes_[patch.image];
    const int64_t reach = blur.reach;
    for (int64_t k = 0; k < patch.rows + 2 * reach; ++k)
      load_row(patch, std::clamp<int64_t>(patch.row + k - reach, 0, height_ - 1), reach,
               buffers.converted, buffers.padded[k]);
    for (int64_t k = 0; k < patch.rows; ++k) {
      const Tile tile{patch.image, 0, 0, 0, (patch.row + k) * width_ + patch.column, patch.columns};
      const A* x = buffers.padded[k + reach];
      if (reach > 0) {
        blur_line(x, kLine, blur, patch.columns + 2 * reach, buffers.down);
        blur_line(buffers.down + reach, 1, blur, patch.columns, buffers.blurred);
        x = buffers.blurred;
      }
      if (view.noise != A(0)) draw(uint32_t(tile.first), view, patch.columns, buffers.normal);
      A* const out = sink_.place(tile, buffers.result);
      finish(x, buffers.normal, view, patch.columns, out);
      sink_.put(tile, out);
    }
  }

 private:
  // The patch's columns of a row and `reach` more at each side.
  void load_row(const Patch& patch, int64_t row, int64_t reach, A* converted, A* out) const {
    const int64_t from = std::max<int64_t>(patch.column - reach, 0);
    const int64_t to = std::min(patch.column + patch.columns + reach, width_);
    const Tile tile{patch.image, 0, 0, 0, row * width_ + from, to - from};
    A* const first = out + (from - (patch.column - reach));
    A* const end = first + tile.n;
    clip(source_.read(tile, converted), tile.n, first);
    std::fill(out, first, *first);
    std::fill(end, out + patch.columns + 2 * reach, end[-1]);
  }

  std::vector<Recipe<A>> recipes_;
  Source<A> source_;
  Sink<A> sink_;
  int64_t height_, width_;
};

template <class A>
void forward(const Arguments& arguments, Tensor& result) {
  const Painter<A> painter(arguments, result);
  const int64_t height = result.size(2), width = result.size(3);
  const int64_t down = (height + kRows - 1) / kRows, across = (width + kColumns - 1) / kColumns;
  const int64_t grain = kGrain / (kRows * std::clamp<int64_t>(width, 1, kColumns));
  torch::stable::parallel_for(
      0, result.size(0) * down * across, grain, [&](int64_t begin, int64_t end) {
        Buffers<A> buffers;
        for (int64_t k = begin; k < end; ++k) {
          const int64_t row = k / across % down * kRows, column = k % across * kColumns;
          painter.paint({k / (down * across), row, std::min(kRows, height - row), column,
                         std::min(kColumns, width - column)},
                        buffers);
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
