// Batch normalisation with ReLU and 2×2 max-pooling on the CPU. See math/norm_relu.h.
//
// Each pass over memory is one loop, which goes over the channels of four pixels at once,
// neighbours or those of a window: it reads the channels' own numbers once for all four, and a sum
// does not wait for its own store at every pixel. Elements are converted within the loop, which is
// therefore compiled for each type of them.
#include "ops/norm_relu.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "common/elements.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace norm_relu;

// What elements are computed in.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// ---- loops over a tile

// Pixels `stride` elements apart; `row` elements from each lies the one below it.
template <class T>
struct Pixels {
  T* data;
  int64_t stride, row;

  Pixels from(int64_t pixel) const { return {data + pixel * stride, stride, row}; }
};

// Pixel k from the i-th on, or of the i-th window.
template <bool kPool, class T>
ICHFAST_INLINE T* at(const Pixels<T>& pixels, int64_t i, int k) {
  if constexpr (kPool) return pixels.data + (2 * i + k % 2) * pixels.stride + k / 2 * pixels.row;
  return pixels.data + (i + k) * pixels.stride;
}

template <int K>
using Size = std::integral_constant<int, K>;

// Calls f(i, size, c) for all channels c of `size` pixels at once: of n windows, or of n pixels, of
// which the last three may come one by one. The pixels' numbers are arrays in f, and not in the
// loop: GCC does not make registers of a loop's own arrays, and then does not vectorise it.
template <bool kPool, class F>
ICHFAST_INLINE void for_each(int64_t n, int64_t channels, const F& f) {
  const auto go = [&](int64_t i, auto size) ICHFAST_INLINE_LAMBDA {
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) f(i, size, c);
  };
  int64_t i = 0;
  if constexpr (kPool) {
    for (; i < n; ++i) go(i, Size<4>());
  } else {
    for (; i + 4 <= n; i += 4) go(i, Size<4>());
    for (; i < n; ++i) go(i, Size<1>());
  }
}

template <class A, int K>
ICHFAST_INLINE A add(const A (&values)[K]) {
  if constexpr (K == 1)
    return values[0];
  else
    return (values[0] + values[1]) + (values[2] + values[3]);
}

template <class A>
ICHFAST_INLINE Window<A> as_window(const A (&values)[4]) {
  return {values[0], values[1], values[2], values[3]};
}

// Adds the mean of n pixels, and their squared distances from it, to those of `before` others;
// `spare` has room for both.
template <class T, class A>
ICHFAST_INLINE void merge_tile(const Pixels<const T> x, int64_t n, int64_t channels, int64_t before,
                               A* spare, double* to_means, double* to_squares) {
  A *const means = spare, *const squares = spare + channels;
  for (int64_t c = 0; c < 2 * channels; ++c) spare[c] = 0;
  for_each<false>(n, channels, [=](int64_t i, auto size, int64_t c) ICHFAST_INLINE_LAMBDA {
    A values[size()];
    for (int k = 0; k < size(); ++k) values[k] = widen<A>(at<false>(x, i, k)[c]);
    means[c] += add(values);
  });
  for (int64_t c = 0; c < channels; ++c) means[c] /= A(n);
  for_each<false>(n, channels, [=](int64_t i, auto size, int64_t c) ICHFAST_INLINE_LAMBDA {
    A values[size()];
    for (int k = 0; k < size(); ++k) {
      const A distance = widen<A>(at<false>(x, i, k)[c]) - means[c];
      values[k] = distance * distance;
    }
    squares[c] += add(values);
  });
  const Merge<double> merge{double(before), double(n)};
#pragma omp simd
  for (int64_t c = 0; c < channels; ++c)
    merge(double(means[c]), double(squares[c]), to_means[c], to_squares[c]);
}

// The numbers of each channel.
template <class A>
struct Channels {
  int64_t count;
  const A *mean, *scale, *bias;
  const A *shift, *slope;  // null where mean and variance are constants
  A limit;                 // z up to it are 0: 0; NaN without a ReLU, since nothing is up to that

  ICHFAST_INLINE A relu(A z) const { return z <= limit ? A(0) : z; }
  ICHFAST_INLINE A through_relu(A z, A grad) const { return z <= limit ? A(0) : grad; }
};

template <bool kPool, class T, class A>
ICHFAST_INLINE void normalise_as(const Pixels<const T> x, int64_t n, const Channels<A> p,
                                 const Pixels<T> y, const Pixels<T> pooled) {
  for_each<kPool>(n, p.count, [=](int64_t i, auto size, int64_t c) ICHFAST_INLINE_LAMBDA {
    A values[size()];
    for (int k = 0; k < size(); ++k) {
      const A own = widen<A>(at<kPool>(x, i, k)[c]);
      values[k] = p.relu(normalised(own, p.mean[c], p.scale[c], p.bias[c]));
    }
    for (int k = 0; k < size(); ++k) narrow(values[k], &at<kPool>(y, i, k)[c]);
    if constexpr (kPool) narrow(largest(as_window(values)), &at<false>(pooled, i, 0)[c]);
  });
}

// Also the largest of each window, where `pooled` has data.
template <class T, class A>
ICHFAST_INLINE void normalise_tile(const Pixels<const T> x, int64_t n, const Channels<A> p,
                                   const Pixels<T> y, const Pixels<T> pooled) {
  pooled.data ? normalise_as<true>(x, n, p, y, pooled) : normalise_as<false>(x, n, p, y, pooled);
}

// Of n pixels, or windows where they are pooled: the input, and the gradients that arrive. Those
// that do not have no data.
template <class T>
struct Arriving {
  int64_t n;
  Pixels<const T> x, output, pooled;
};

// The gradients of z of K pixels, and x − μ.
template <bool kPool, bool kOutput, class T, class A, int K>
ICHFAST_INLINE void find_gradients(const Arriving<T>& t, int64_t i, int64_t c, const Channels<A>& p,
                                   A (&grads)[K], A (&distances)[K]) {
  A y[K];
  for (int k = 0; k < K; ++k) {
    distances[k] = widen<A>(at<kPool>(t.x, i, k)[c]) - p.mean[c];
    y[k] = distances[k] * p.scale[c] + p.bias[c];
    grads[k] = kOutput ? widen<A>(at<kPool>(t.output, i, k)[c]) : A(0);
  }
  if constexpr (kPool) {
    for (A& z : y) z = p.relu(z);
    const Window<A> routed = route(as_window(y), widen<A>(at<false>(t.pooled, i, 0)[c]));
    grads[0] += routed.a;
    grads[1] += routed.b;
    grads[2] += routed.c;
    grads[3] += routed.d;
  }
  for (int k = 0; k < K; ++k) grads[k] = p.through_relu(y[k], grads[k]);
}

// Adds Σg and Σg·(x − μ); `spare` has room for both.
template <bool kPool, bool kOutput, class T, class A>
ICHFAST_INLINE void sum_as(const Arriving<T> t, const Channels<A> p, A* spare, double* sums) {
  A *const of_tile = spare, *const with_x = spare + p.count;
  for (int64_t c = 0; c < 2 * p.count; ++c) spare[c] = 0;
  for_each<kPool>(t.n, p.count, [=](int64_t i, auto size, int64_t c) ICHFAST_INLINE_LAMBDA {
    A grads[size()], products[size()];
    find_gradients<kPool, kOutput>(t, i, c, p, grads, products);
    for (int k = 0; k < size(); ++k) products[k] *= grads[k];
    of_tile[c] += add(grads);
    with_x[c] += add(products);
  });
#pragma omp simd
  for (int64_t c = 0; c < 2 * p.count; ++c) sums[c] += double(spare[c]);
}

template <class T, class A>
ICHFAST_INLINE void sum_tile(const Arriving<T> t, const Channels<A> p, A* spare, double* sums) {
  if (!t.pooled.data)
    sum_as<false, true>(t, p, spare, sums);
  else
    t.output.data ? sum_as<true, true>(t, p, spare, sums) : sum_as<true, false>(t, p, spare, sums);
}

template <bool kPool, bool kOutput, bool kConstants, class T, class A>
ICHFAST_INLINE void differentiate_as(const Arriving<T> t, const Channels<A> p,
                                     const Pixels<T> out) {
  for_each<kPool>(t.n, p.count, [=](int64_t i, auto size, int64_t c) ICHFAST_INLINE_LAMBDA {
    A grads[size()], distances[size()];
    find_gradients<kPool, kOutput>(t, i, c, p, grads, distances);
    for (int k = 0; k < size(); ++k) {
      grads[k] *= p.scale[c];
      if constexpr (!kConstants) grads[k] = grads[k] - p.shift[c] - distances[k] * p.slope[c];
    }
    for (int k = 0; k < size(); ++k) narrow(grads[k], &at<kPool>(out, i, k)[c]);
  });
}

// ∂/∂x, with the terms of the statistics unless these are constants.
template <bool kConstants, class T, class A>
ICHFAST_INLINE void differentiate_with(const Arriving<T> t, const Channels<A> p,
                                       const Pixels<T> out) {
  if (!t.pooled.data)
    differentiate_as<false, true, kConstants>(t, p, out);
  else
    t.output.data ? differentiate_as<true, true, kConstants>(t, p, out)
                  : differentiate_as<true, false, kConstants>(t, p, out);
}

template <class T, class A>
ICHFAST_INLINE void differentiate_tile(const Arriving<T> t, const Channels<A> p,
                                       const Pixels<T> out) {
  p.slope ? differentiate_with<false>(t, p, out) : differentiate_with<true>(t, p, out);
}

#define ICHFAST_TILES(kSimd, T, A)                                                                 \
  kSimd void merge_moments(const Pixels<const T> x, int64_t n, int64_t channels, int64_t before,   \
                           A* spare, double* means, double* squares) {                             \
    merge_tile(x, n, channels, before, spare, means, squares);                                     \
  }                                                                                                \
  kSimd void normalise(const Pixels<const T> x, int64_t n, const Channels<A> p, const Pixels<T> y, \
                       const Pixels<T> pooled) {                                                   \
    normalise_tile(x, n, p, y, pooled);                                                            \
  }                                                                                                \
  kSimd void sum(const Arriving<T> t, const Channels<A> p, A* spare, double* sums) {               \
    sum_tile(t, p, spare, sums);                                                                   \
  }                                                                                                \
  kSimd void differentiate(const Arriving<T> t, const Channels<A> p, const Pixels<T> out) {        \
    differentiate_tile(t, p, out);                                                                 \
  }
ICHFAST_TILES(ICHFAST_SIMD, float, float)
ICHFAST_TILES(ICHFAST_SIMD, Half, float)
ICHFAST_TILES(ICHFAST_SIMD, BFloat16, float)
ICHFAST_TILES(, double, double)
#undef ICHFAST_TILES

// ---- from tensors to tiles

template <class T>
Pixels<const T> view(const Tensor& tensor) {
  const int64_t stride = *find_pixel_stride(tensor);
  return {static_cast<const T*>(tensor.const_data_ptr()), stride, tensor.size(3) * stride};
}

template <class T>
Pixels<const T> view(const std::optional<Tensor>& tensor) {
  return tensor ? view<T>(*tensor) : Pixels<const T>{};
}

// From a channel on.
template <class T>
Pixels<T> view_result(Tensor& tensor, int64_t channel = 0) {
  const int64_t stride = tensor.size(1);
  return {static_cast<T*>(tensor.mutable_data_ptr()) + channel, stride, tensor.size(3) * stride};
}

// The pixels of a tensor, or the windows where it is pooled, in chunks that do not depend on the
// number of threads, and these in tiles, whose sums a float may hold and the first-level cache the
// values, over which the moments go twice.
class Tiles {
 public:
  static constexpr int64_t kPixels = 64;
  static constexpr int64_t kValues = 4096;
  static constexpr int64_t kPerChunk = 16;

  Tiles(const Tensor& tensor, bool pooled)
      : channels_(std::max<int64_t>(tensor.size(1), 1)),
        width_(tensor.size(3)),
        pooled_(pooled),
        units_(count_pixels(tensor) / (pooled ? 4 : 1)) {
    const int64_t pixels = std::clamp<int64_t>(kValues / channels_ / 4 * 4, 1, kPixels);
    per_tile_ = pooled ? std::max<int64_t>(pixels / 4, 1) : pixels;
  }

  int64_t chunks() const {
    const int64_t units = per_tile_ * kPerChunk;
    return (units_ + units - 1) / units;
  }

  // Its first pixel or window; the number of all where there is no such chunk.
  int64_t begin(int64_t chunk) const { return std::min(chunk * per_tile_ * kPerChunk, units_); }

  // Calls body(spare, chunk, first, n) for each tile; those of a chunk in order, on one thread. The
  // spare memory has room for two numbers per channel.
  template <class A, class F>
  void for_each(const F& body) const {
    torch::stable::parallel_for(0, chunks(), 1, [&](int64_t begin, int64_t end) {
      std::vector<A> spare(2 * channels_);
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t stop = this->begin(chunk + 1);
        for (int64_t first = this->begin(chunk), n; first < stop; first += n) {
          n = std::min(per_tile_, stop - first);
          if (pooled_) n = std::min(n, width_ / 2 - first % (width_ / 2));
          body(spare.data(), chunk, first, n);
        }
      }
    });
  }

  // A pixel, or the upper left one of a window.
  int64_t corner(int64_t unit) const {
    if (!pooled_) return unit;
    const int64_t row = width_ / 2;
    return unit / row * 2 * width_ + unit % row * 2;
  }

 private:
  int64_t channels_, width_;
  bool pooled_;
  int64_t units_, per_tile_ = 0;
};

// The numbers of each channel, with those of the gradient where there are sums.
template <class A>
class Parameters {
 public:
  explicit Parameters(const Arguments& arguments, const Tensor* sums = nullptr) {
    const A* const variance = arguments.variance.const_data_ptr<A>();
    const A* const weight = arguments.weight.const_data_ptr<A>();
    const int64_t channels = arguments.channels();
    const double count = double(count_pixels(arguments.input));
    for (int64_t c = 0; c < channels; ++c) {
      inverse.push_back(inverse_deviation<double>(variance[c], arguments.eps));
      scale_.push_back(A(weight[c] * inverse[c]));
      if (!sums) continue;
      const double* const own = sums->const_data_ptr<double>() + c;
      const auto g = gradient<double>(own[0], own[channels], weight[c], inverse[c], count);
      shift_.push_back(A(g.shift));
      slope_.push_back(A(g.slope));
    }
    of_channels = {channels,
                   arguments.mean.const_data_ptr<A>(),
                   scale_.data(),
                   arguments.bias.const_data_ptr<A>(),
                   sums ? shift_.data() : nullptr,
                   sums ? slope_.data() : nullptr,
                   arguments.relu ? A(0) : std::numeric_limits<A>::quiet_NaN()};
  }

  std::vector<double> inverse;
  Channels<A> of_channels;

 private:
  std::vector<A> scale_, shift_, slope_;
};

// ---- the op

template <class T>
void moments(const Tensor& input, Tensor& mean, Tensor& variance) {
  using A = Wide<T>;
  const auto x = view<T>(input);
  const Tiles tiles(input, false);
  const int64_t channels = input.size(1);
  std::vector<double> of_chunk(tiles.chunks() * 2 * channels);
  tiles.for_each<A>([&](A* spare, int64_t chunk, int64_t first, int64_t n) {
    double* const own = &of_chunk[chunk * 2 * channels];
    merge_moments(x.from(first), n, channels, first - tiles.begin(chunk), spare, own,
                  own + channels);
  });
  std::vector<double> whole(2 * channels);
  for (int64_t chunk = 0; chunk < tiles.chunks(); ++chunk) {
    const double* const own = &of_chunk[chunk * 2 * channels];
    const int64_t first = tiles.begin(chunk);
    const Merge<double> merge{double(first), double(tiles.begin(chunk + 1) - first)};
    for (int64_t c = 0; c < channels; ++c)
      merge(own[c], own[channels + c], whole[c], whole[channels + c]);
  }
  const double count = double(count_pixels(input));
  for (int64_t c = 0; c < channels; ++c) {
    mean.mutable_data_ptr<A>()[c] = A(count > 0 ? whole[c] : std::nan(""));
    variance.mutable_data_ptr<A>()[c] = A(whole[channels + c] / count);
  }
}

// Into the first channels of wider pixels.
template <class T>
void copy_pixels(const Pixels<const T> from, int64_t pixels, int64_t channels, const Pixels<T> to) {
  for (int64_t i = 0; i < pixels; ++i)
    std::memcpy(at<false>(to, i, 0), at<false>(from, i, 0), channels * sizeof(T));
}

template <class T>
void forward(const Arguments& arguments, const Tensor* beside, Tensor& output, Tensor* pooled) {
  using A = Wide<T>;
  const int64_t before = beside ? beside->size(1) : 0;
  const auto x = view<T>(arguments.input);
  const auto first_channels = beside ? view<T>(*beside) : Pixels<const T>{};
  const auto whole = view_result<T>(output), y = view_result<T>(output, before);
  const auto small = pooled ? view_result<T>(*pooled) : Pixels<T>{};
  const Parameters<A> parameters(arguments);
  const Tiles tiles(arguments.input, pooled != nullptr);
  tiles.for_each<A>([&](A*, int64_t, int64_t first, int64_t n) {
    const int64_t pixel = tiles.corner(first);
    normalise(x.from(pixel), n, parameters.of_channels, y.from(pixel), small.from(first));
    if (beside) copy_pixels(first_channels.from(pixel), n, before, whole.from(pixel));
  });
}

// The gradients and the input, from the first unit of a tile on.
template <class T>
class ArrivingTiles {
 public:
  ArrivingTiles(const Arguments& arguments, const Gradients& gradients, const Tiles& tiles)
      : tiles_(tiles),
        x_(view<T>(arguments.input)),
        output_(view<T>(gradients.output)),
        pooled_(view<T>(gradients.pooled)) {}

  Arriving<T> tile(int64_t first, int64_t n) const {
    const int64_t pixel = tiles_.corner(first);
    return {n, x_.from(pixel), output_.from(pixel), pooled_.from(first)};
  }

 private:
  const Tiles& tiles_;
  Pixels<const T> x_, output_, pooled_;
};

template <class T>
void compute_sums(const Arguments& arguments, const Gradients& gradients, Tensor& sums_out) {
  using A = Wide<T>;
  const int64_t channels = arguments.channels();
  const Parameters<A> parameters(arguments);
  const Tiles tiles(arguments.input, gradients.pooled.has_value());
  const ArrivingTiles<T> arriving(arguments, gradients, tiles);
  std::vector<double> of_chunk(tiles.chunks() * 2 * channels);
  tiles.for_each<A>([&](A* spare, int64_t chunk, int64_t first, int64_t n) {
    sum(arriving.tile(first, n), parameters.of_channels, spare, &of_chunk[chunk * 2 * channels]);
  });
  double* const sums = sums_out.mutable_data_ptr<double>();
  std::fill_n(sums, 2 * channels, 0.0);
  for (int64_t i = 0; i < int64_t(of_chunk.size()); ++i) sums[i % (2 * channels)] += of_chunk[i];
  // Without pixels there is no deviation, and both sums are 0.
  for (int64_t c = 0; c < channels && tiles.chunks() > 0; ++c)
    sums[channels + c] *= parameters.inverse[c];
}

template <class T>
void backward(const Arguments& arguments, const Gradients& gradients, const Tensor* sums,
              Tensor& grad_input) {
  using A = Wide<T>;
  const Parameters<A> parameters(arguments, sums);
  const Tiles tiles(arguments.input, gradients.pooled.has_value());
  const ArrivingTiles<T> arriving(arguments, gradients, tiles);
  const auto out = view_result<T>(grad_input);
  tiles.for_each<A>([&](A*, int64_t, int64_t first, int64_t n) {
    differentiate(arriving.tile(first, n), parameters.of_channels, out.from(tiles.corner(first)));
  });
}

// Calls f with an element of the tensor's type.
template <class F>
void dispatch(const Tensor& tensor, const F& f) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return f(double());
    case ScalarType::Half:
      return f(Half());
    case ScalarType::BFloat16:
      return f(BFloat16());
    default:
      return f(float());
  }
}

void moments_cpu(const Tensor& input, Tensor& mean, Tensor& variance) {
  dispatch(input, [&](auto element) { moments<decltype(element)>(input, mean, variance); });
}

void forward_cpu(const Arguments& arguments, const Tensor* beside, Tensor& output, Tensor* pooled) {
  dispatch(arguments.input,
           [&](auto element) { forward<decltype(element)>(arguments, beside, output, pooled); });
}

void sums_cpu(const Arguments& arguments, const Gradients& gradients, Tensor& sums) {
  dispatch(arguments.input,
           [&](auto element) { compute_sums<decltype(element)>(arguments, gradients, sums); });
}

void backward_cpu(const Arguments& arguments, const Gradients& gradients, const Tensor* sums,
                  Tensor& grad_input) {
  dispatch(arguments.input, [&](auto element) {
    backward<decltype(element)>(arguments, gradients, sums, grad_input);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("norm_relu_moments", TORCH_BOX(&moments_op<moments_cpu>));
  m.impl("norm_relu", TORCH_BOX(&forward_op<forward_cpu>));
  m.impl("norm_relu_sums_backward", TORCH_BOX(&sums_op<sums_cpu>));
  m.impl("norm_relu_backward", TORCH_BOX(&backward_op<backward_cpu>));
}

}  // namespace ichfast
