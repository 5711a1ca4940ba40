// Batch normalisation with ReLU and 2×2 max-pooling on the CPU. See math/norm_relu.h.
//
// A tile is a run of neighbouring pixels with all their channels, 16 KiB as floats: what one loop
// over it leaves, the next finds in the first-level cache. So a pass over memory is several short
// loops, each over the channels of a pixel.
#include "ops/norm_relu.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/common/simd.h"
#include "cpu/common/tile.h"

namespace ichfast {
namespace {

using namespace norm_relu;

// ---- loops over a tile

// Pixels `stride` elements apart.
template <class T>
struct Run {
  T* data;
  int64_t stride;

  T* at(int64_t pixel) const { return data + pixel * stride; }
};

// Of each channel, as the loops take them.
template <class A>
struct Channels {
  const A *mean, *scale, *bias;
};

// sums[c]: f(i, c) over the pixels i of a tile. Four pixels go at once: one by one, each sum would
// wait for its own store.
template <class A, class F>
ICHFAST_INLINE void add_up(int64_t pixels, int64_t channels, A* sums, const F& f) {
  for (int64_t c = 0; c < channels; ++c) sums[c] = 0;
  int64_t i = 0;
  for (; i + 4 <= pixels; i += 4) {
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c)
      sums[c] += (f(i, c) + f(i + 1, c)) + (f(i + 2, c) + f(i + 3, c));
  }
  for (; i < pixels; ++i) {
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) sums[c] += f(i, c);
  }
}

template <class A>
ICHFAST_INLINE void moments_tile(const Run<const A> x, int64_t pixels, int64_t channels, A* means,
                                 A* squares) {
  add_up(pixels, channels, means, [=](int64_t i, int64_t c) { return x.at(i)[c]; });
  const A count = A(pixels);
  for (int64_t c = 0; c < channels; ++c) means[c] /= count;
  add_up(pixels, channels, squares, [=](int64_t i, int64_t c) {
    const A distance = x.at(i)[c] - means[c];
    return distance * distance;
  });
}

ICHFAST_SIMD void compute_moments(const Run<const float> x, int64_t pixels, int64_t channels,
                                  float* means, float* squares) {
  moments_tile(x, pixels, channels, means, squares);
}

void compute_moments(const Run<const double> x, int64_t pixels, int64_t channels, double* means,
                     double* squares) {
  moments_tile(x, pixels, channels, means, squares);
}

template <class A, class F>
ICHFAST_INLINE void write(int64_t pixels, int64_t channels, const Run<A> out, const F& f) {
  for (int64_t i = 0; i < pixels; ++i) {
    A* const to = out.at(i);
#pragma omp simd
    for (int64_t c = 0; c < channels; ++c) to[c] = f(i, c);
  }
}

template <bool kRelu, class A>
ICHFAST_INLINE void normalise_tile(const Run<const A> x, int64_t pixels, int64_t channels,
                                   const Channels<A> p, const Run<A> out) {
  write(pixels, channels, out, [=](int64_t i, int64_t c) {
    const A z = normalised(x.at(i)[c], p.mean[c], p.scale[c], p.bias[c]);
    return kRelu ? relu(z) : z;
  });
}

ICHFAST_SIMD void normalise(const Run<const float> x, int64_t pixels, int64_t channels,
                            const Channels<float> p, bool relu, const Run<float> out) {
  relu ? normalise_tile<true>(x, pixels, channels, p, out)
       : normalise_tile<false>(x, pixels, channels, p, out);
}

void normalise(const Run<const double> x, int64_t pixels, int64_t channels,
               const Channels<double> p, bool relu, const Run<double> out) {
  relu ? normalise_tile<true>(x, pixels, channels, p, out)
       : normalise_tile<false>(x, pixels, channels, p, out);
}

// The channels of window i, of which `top` has the upper pixels and `bottom` the lower ones.
template <class A>
ICHFAST_INLINE Window<A> window(const Run<const A> top, const Run<const A> bottom, int64_t i,
                                int64_t c) {
  return {top.at(2 * i)[c], top.at(2 * i + 1)[c], bottom.at(2 * i)[c], bottom.at(2 * i + 1)[c]};
}

template <class A>
ICHFAST_INLINE void pool_tile(const Run<const A> top, const Run<const A> bottom, int64_t windows,
                              int64_t channels, const Run<A> out) {
  write(windows, channels, out,
        [=](int64_t i, int64_t c) { return largest(window(top, bottom, i, c)); });
}

ICHFAST_SIMD void pool(const Run<const float> top, const Run<const float> bottom, int64_t windows,
                       int64_t channels, const Run<float> out) {
  pool_tile(top, bottom, windows, channels, out);
}

void pool(const Run<const double> top, const Run<const double> bottom, int64_t windows,
          int64_t channels, const Run<double> out) {
  pool_tile(top, bottom, windows, channels, out);
}

// The gradient of z from that of the pooled values and, where its data are there, of y.
template <bool kOutput, class A>
ICHFAST_INLINE void route_tile(const Run<const A> top, const Run<const A> bottom, int64_t windows,
                               int64_t channels, const Channels<A> p, const Run<const A> pooled,
                               const Run<const A> grad_top, const Run<const A> grad_bottom,
                               const Run<A> out_top, const Run<A> out_bottom) {
  for (int64_t i = 0; i < windows; ++i) {
    const A* const grad = pooled.at(i);
    const A *const xa = top.at(2 * i), *const xb = top.at(2 * i + 1);
    const A *const xc = bottom.at(2 * i), *const xd = bottom.at(2 * i + 1);
    const A *const ga = grad_top.at(2 * i), *const gb = grad_top.at(2 * i + 1);
    const A *const gc = grad_bottom.at(2 * i), *const gd = grad_bottom.at(2 * i + 1);
    A *const a = out_top.at(2 * i), *const b = out_top.at(2 * i + 1);
    A *const c = out_bottom.at(2 * i), *const d = out_bottom.at(2 * i + 1);
    // Not written into the loop: GCC makes arrays of a loop's own structs, and does not vectorise.
    const auto of_channel = [=](int64_t k) {
      const A mean = p.mean[k], scale = p.scale[k], bias = p.bias[k];
      const Window<A> y{
          relu(normalised(xa[k], mean, scale, bias)), relu(normalised(xb[k], mean, scale, bias)),
          relu(normalised(xc[k], mean, scale, bias)), relu(normalised(xd[k], mean, scale, bias))};
      const Window<A> g = route(y, grad[k]);
      a[k] = through_relu(y.a, kOutput ? g.a + ga[k] : g.a);
      b[k] = through_relu(y.b, kOutput ? g.b + gb[k] : g.b);
      c[k] = through_relu(y.c, kOutput ? g.c + gc[k] : g.c);
      d[k] = through_relu(y.d, kOutput ? g.d + gd[k] : g.d);
    };
#pragma omp simd
    for (int64_t k = 0; k < channels; ++k) of_channel(k);
  }
}

ICHFAST_SIMD void route(const Run<const float> top, const Run<const float> bottom, int64_t windows,
                        int64_t channels, const Channels<float> p, const Run<const float> pooled,
                        const Run<const float> grad_top, const Run<const float> grad_bottom,
                        const Run<float> out_top, const Run<float> out_bottom) {
  grad_top.data ? route_tile<true>(top, bottom, windows, channels, p, pooled, grad_top, grad_bottom,
                                   out_top, out_bottom)
                : route_tile<false>(top, bottom, windows, channels, p, pooled, grad_top,
                                    grad_bottom, out_top, out_bottom);
}

void route(const Run<const double> top, const Run<const double> bottom, int64_t windows,
           int64_t channels, const Channels<double> p, const Run<const double> pooled,
           const Run<const double> grad_top, const Run<const double> grad_bottom,
           const Run<double> out_top, const Run<double> out_bottom) {
  grad_top.data ? route_tile<true>(top, bottom, windows, channels, p, pooled, grad_top, grad_bottom,
                                   out_top, out_bottom)
                : route_tile<false>(top, bottom, windows, channels, p, pooled, grad_top,
                                    grad_bottom, out_top, out_bottom);
}

// Σg and Σg·(x − μ); kRelu where g is still the gradient of y.
template <bool kRelu, class A>
ICHFAST_INLINE void sum_tile(const Run<const A> x, const Run<const A> grad, int64_t pixels,
                             int64_t channels, const Channels<A> p, A* sums, A* with_x) {
  const auto of_z = [=](int64_t i, int64_t c) {
    const A g = grad.at(i)[c];
    if constexpr (!kRelu) return g;
    return through_relu(normalised(x.at(i)[c], p.mean[c], p.scale[c], p.bias[c]), g);
  };
  add_up(pixels, channels, sums, of_z);
  add_up(pixels, channels, with_x,
         [=](int64_t i, int64_t c) { return of_z(i, c) * (x.at(i)[c] - p.mean[c]); });
}

ICHFAST_SIMD void sum(const Run<const float> x, const Run<const float> grad, int64_t pixels,
                      int64_t channels, const Channels<float> p, bool relu, float* sums,
                      float* with_x) {
  relu ? sum_tile<true>(x, grad, pixels, channels, p, sums, with_x)
       : sum_tile<false>(x, grad, pixels, channels, p, sums, with_x);
}

void sum(const Run<const double> x, const Run<const double> grad, int64_t pixels, int64_t channels,
         const Channels<double> p, bool relu, double* sums, double* with_x) {
  relu ? sum_tile<true>(x, grad, pixels, channels, p, sums, with_x)
       : sum_tile<false>(x, grad, pixels, channels, p, sums, with_x);
}

template <bool kRelu, bool kConstant, class A>
ICHFAST_INLINE void differentiate_tile(const Run<const A> x, const Run<const A> grad,
                                       int64_t pixels, int64_t channels, const Channels<A> p,
                                       const A* shift, const A* slope, const Run<A> out) {
  write(pixels, channels, out, [=](int64_t i, int64_t c) {
    const A distance = x.at(i)[c] - p.mean[c];
    A g = grad.at(i)[c];
    if constexpr (kRelu) g = through_relu(distance * p.scale[c] + p.bias[c], g);
    if constexpr (kConstant) return p.scale[c] * g;
    return p.scale[c] * g - shift[c] - distance * slope[c];
  });
}

template <class A>
ICHFAST_INLINE void differentiate_any(const Run<const A> x, const Run<const A> grad, int64_t pixels,
                                      int64_t channels, const Channels<A> p, bool relu,
                                      const A* shift, const A* slope, const Run<A> out) {
  if (shift)
    relu ? differentiate_tile<true, false>(x, grad, pixels, channels, p, shift, slope, out)
         : differentiate_tile<false, false>(x, grad, pixels, channels, p, shift, slope, out);
  else
    relu ? differentiate_tile<true, true>(x, grad, pixels, channels, p, shift, slope, out)
         : differentiate_tile<false, true>(x, grad, pixels, channels, p, shift, slope, out);
}

// `shift` is null where mean and variance are constants.
ICHFAST_SIMD void differentiate(const Run<const float> x, const Run<const float> grad,
                                int64_t pixels, int64_t channels, const Channels<float> p,
                                bool relu, const float* shift, const float* slope,
                                const Run<float> out) {
  differentiate_any(x, grad, pixels, channels, p, relu, shift, slope, out);
}

void differentiate(const Run<const double> x, const Run<const double> grad, int64_t pixels,
                   int64_t channels, const Channels<double> p, bool relu, const double* shift,
                   const double* slope, const Run<double> out) {
  differentiate_any(x, grad, pixels, channels, p, relu, shift, slope, out);
}

// ---- from tensors to tiles

// Reads runs of pixels.
template <class A>
class PixelSource {
 public:
  explicit PixelSource(const Tensor& tensor)
      : dtype_(tensor.scalar_type()),
        data_(tensor.const_data_ptr()),
        channels_(tensor.size(1)),
        stride_(*find_pixel_stride(tensor)) {}

  Run<const A> read(int64_t first, int64_t pixels, A* buffer) const {
    if (dtype_ == (sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float))
      return {static_cast<const A*>(data_) + first * stride_, stride_};
    if (stride_ == channels_) {
      load(dtype_, data_, first * stride_, 1, pixels * channels_, buffer);
    } else {
      for (int64_t i = 0; i < pixels; ++i)
        load(dtype_, data_, (first + i) * stride_, 1, channels_, buffer + i * channels_);
    }
    return {buffer, channels_};
  }

 private:
  ScalarType dtype_;
  const void* data_;
  int64_t channels_, stride_;
};

// Writes them, into `channels` of the channels from `offset` on: compute into place(…), then
// put(…).
template <class A>
class PixelSink {
 public:
  explicit PixelSink(Tensor& tensor, int64_t offset = 0)
      : dtype_(tensor.scalar_type()),
        data_(tensor.mutable_data_ptr()),
        offset_(offset),
        channels_(tensor.size(1) - offset),
        stride_(tensor.size(1)),
        direct_(dtype_ == (sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float)) {}

  Run<A> place(int64_t first, A* buffer) const {
    if (direct_) return {static_cast<A*>(data_) + first * stride_ + offset_, stride_};
    return {buffer, channels_};
  }

  void put(int64_t first, int64_t pixels, const Run<A> run) const {
    if (direct_) return;
    if (offset_ == 0) {
      store(dtype_, data_, first * stride_, 1, pixels * channels_, run.data);
    } else {
      for (int64_t i = 0; i < pixels; ++i)
        store(dtype_, data_, (first + i) * stride_ + offset_, 1, channels_, run.at(i));
    }
  }

 private:
  ScalarType dtype_;
  void* data_;
  int64_t offset_, channels_, stride_;
  bool direct_;
};

// The pixels of a tensor, or the windows where it is pooled, in chunks that do not depend on the
// number of threads, and these in tiles.
class Tiles {
 public:
  static constexpr int64_t kValues = 4096;
  static constexpr int64_t kPixels = 64;  // whose sum a float may hold
  static constexpr int64_t kPerChunk = 16;

  Tiles(const Tensor& tensor, bool pooled)
      : channels_(std::max<int64_t>(tensor.size(1), 1)),
        width_(tensor.size(3)),
        pooled_(pooled),
        units_(count_pixels(tensor) / (pooled ? 4 : 1)) {
    const int64_t pixels = std::clamp<int64_t>(kValues / channels_, 1, kPixels);
    per_tile_ = pooled ? std::max<int64_t>(pixels / 4, 1) : pixels;
  }

  int64_t chunks() const {
    const int64_t units = per_tile_ * kPerChunk;
    return (units_ + units - 1) / units;
  }

  // Its first pixel or window; the number of all where there is no such chunk.
  int64_t begin(int64_t chunk) const { return std::min(chunk * per_tile_ * kPerChunk, units_); }

  // Values of a run of pixels: what a buffer must have room for.
  int64_t values() const { return (pooled_ ? 2 : 1) * per_tile_ * channels_; }

  // Calls body(buffers, chunk, first, n) for each tile; those of a chunk in order, on one thread.
  // Each of the kBuffers has room for a run.
  template <class A, int kBuffers, class F>
  void for_each(const F& body) const {
    torch::stable::parallel_for(0, chunks(), 1, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<A[]> memory(new A[kBuffers * values()]);
      A* buffers[kBuffers];
      for (int k = 0; k < kBuffers; ++k) buffers[k] = memory.get() + k * values();
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t stop = this->begin(chunk + 1);
        for (int64_t first = this->begin(chunk), n; first < stop; first += n) {
          n = std::min(per_tile_, stop - first);
          if (pooled_) n = std::min(n, width_ / 2 - first % (width_ / 2));
          body(buffers, chunk, first, n);
        }
      }
    });
  }

  // The upper left pixel of a window.
  int64_t corner(int64_t window) const {
    const int64_t row = width_ / 2;
    return window / row * 2 * width_ + window % row * 2;
  }

 private:
  int64_t channels_, width_;
  bool pooled_;
  int64_t units_, per_tile_ = 0;
};

template <class A>
class Parameters {
 public:
  explicit Parameters(const Arguments& arguments)
      : mean_(arguments.mean.const_data_ptr<A>()),
        bias_(arguments.bias.const_data_ptr<A>()),
        weight_(arguments.weight.const_data_ptr<A>()) {
    const A* const variance = arguments.variance.const_data_ptr<A>();
    for (int64_t c = 0; c < arguments.channels(); ++c) {
      inverse.push_back(inverse_deviation<double>(variance[c], arguments.eps));
      scale_.push_back(A(weight_[c] * inverse[c]));
    }
  }

  Channels<A> channels() const { return {mean_, scale_.data(), bias_}; }
  double weight(int64_t c) const { return weight_[c]; }

  std::vector<double> inverse;

 private:
  const A *mean_, *bias_, *weight_;
  std::vector<A> scale_;
};

// Adds one tile's sums to those of its chunk.
template <class A>
ICHFAST_INLINE void widen_and_add(const A* of_tile, int64_t n, double* sums) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) sums[i] += double(of_tile[i]);
}

ICHFAST_SIMD void add_sums(const float* of_tile, int64_t n, double* sums) {
  widen_and_add(of_tile, n, sums);
}

void add_sums(const double* of_tile, int64_t n, double* sums) {
  widen_and_add(of_tile, n, sums);
}

template <class A>
ICHFAST_INLINE void merge_all(const A* means, const A* squares, int64_t n,
                              const Merge<double> merge, double* to_means, double* to_squares) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    merge(double(means[i]), double(squares[i]), to_means[i], to_squares[i]);
}

ICHFAST_SIMD void merge_moments(const float* means, const float* squares, int64_t n,
                                const Merge<double> merge, double* to_means, double* to_squares) {
  merge_all(means, squares, n, merge, to_means, to_squares);
}

ICHFAST_SIMD void merge_moments(const double* means, const double* squares, int64_t n,
                                const Merge<double> merge, double* to_means, double* to_squares) {
  merge_all(means, squares, n, merge, to_means, to_squares);
}

// ---- the op

template <class A>
void moments(const Tensor& input, Tensor& mean, Tensor& variance) {
  const PixelSource<A> source(input);
  const Tiles tiles(input, false);
  const int64_t channels = input.size(1);
  std::vector<double> of_chunk(tiles.chunks() * 2 * channels);
  tiles.for_each<A, 3>([&](A** buffers, int64_t chunk, int64_t first, int64_t n) {
    compute_moments(source.read(first, n, buffers[0]), n, channels, buffers[1], buffers[2]);
    double* const own = &of_chunk[chunk * 2 * channels];
    merge_moments(buffers[1], buffers[2], channels, Merge<double>(first - tiles.begin(chunk), n),
                  own, own + channels);
  });
  std::vector<double> whole(2 * channels);
  double *const means = whole.data(), *const squares = means + channels;
  for (int64_t chunk = 0; chunk < tiles.chunks(); ++chunk) {
    const double* const own = &of_chunk[chunk * 2 * channels];
    const int64_t first = tiles.begin(chunk);
    merge_moments(own, own + channels, channels,
                  Merge<double>(first, tiles.begin(chunk + 1) - first), means, squares);
  }
  const double count = double(count_pixels(input));
  for (int64_t c = 0; c < channels; ++c) {
    mean.mutable_data_ptr<A>()[c] = A(count > 0 ? means[c] : std::nan(""));
    variance.mutable_data_ptr<A>()[c] = A(squares[c] / count);
  }
}

// Pixels as they are, into the first channels of wider ones.
void copy_pixels(const Tensor& from, Tensor& to, int64_t first, int64_t pixels) {
  const int64_t size = from.element_size(), stride = *find_pixel_stride(from) * size,
                wider = to.size(1) * size;
  const char* in = static_cast<const char*>(from.const_data_ptr()) + first * stride;
  char* out = static_cast<char*>(to.mutable_data_ptr()) + first * wider;
  for (int64_t i = 0; i < pixels; ++i, in += stride, out += wider)
    std::memcpy(out, in, from.size(1) * size);
}

template <class A>
Run<const A> constant(const Run<A> run) {
  return {run.data, run.stride};
}

template <class A>
void forward(const Arguments& arguments, const Tensor* beside, Tensor& output, Tensor* pooled) {
  const int64_t channels = arguments.channels(), width = arguments.input.size(3);
  const PixelSource<A> source(arguments.input);
  const PixelSink<A> sink(output, beside ? beside->size(1) : 0);
  const Parameters<A> parameters(arguments);
  const Channels<A> p = parameters.channels();
  const Tiles tiles(arguments.input, pooled != nullptr);
  if (!pooled) {
    tiles.for_each<A, 2>([&](A** buffers, int64_t, int64_t first, int64_t n) {
      const Run<A> out = sink.place(first, buffers[1]);
      normalise(source.read(first, n, buffers[0]), n, channels, p, arguments.relu, out);
      sink.put(first, n, out);
      if (beside) copy_pixels(*beside, output, first, n);
    });
    return;
  }
  const PixelSink<A> small(*pooled);
  tiles.for_each<A, 4>([&](A** buffers, int64_t, int64_t first, int64_t n) {
    Run<A> rows[2];
    for (int k = 0; k < 2; ++k) {
      const int64_t pixel = tiles.corner(first) + k * width;
      rows[k] = sink.place(pixel, buffers[k]);
      normalise(source.read(pixel, 2 * n, buffers[2]), 2 * n, channels, p, true, rows[k]);
      sink.put(pixel, 2 * n, rows[k]);
    }
    const Run<A> out = small.place(first, buffers[3]);
    pool(constant(rows[0]), constant(rows[1]), n, channels, out);
    small.put(first, n, out);
  });
}

// Calls body(spare, chunk, first, pixels, x, grad, relu) for runs of pixels: grad is the gradient
// of y where relu is true, else that of z. There are three spare buffers.
template <class A, class F>
void for_each_run(const Tiles& tiles, const Arguments& arguments, const Gradients& gradients,
                  const Channels<A> p, const F& body) {
  const int64_t channels = arguments.channels(), width = arguments.input.size(3);
  const PixelSource<A> source(arguments.input);
  const PixelSource<A> output(gradients.output ? *gradients.output : arguments.input);
  if (!gradients.pooled) {
    tiles.for_each<A, 5>([&](A** buffers, int64_t chunk, int64_t first, int64_t n) {
      body(buffers + 2, chunk, first, n, source.read(first, n, buffers[0]),
           output.read(first, n, buffers[1]), arguments.relu);
    });
    return;
  }
  const PixelSource<A> pooled(*gradients.pooled);
  tiles.for_each<A, 10>([&](A** buffers, int64_t chunk, int64_t first, int64_t n) {
    Run<const A> x[2], grad[2] = {};
    const Run<A> of_z[2] = {{buffers[7], channels}, {buffers[8], channels}};
    for (int k = 0; k < 2; ++k) {
      const int64_t pixel = tiles.corner(first) + k * width;
      x[k] = source.read(pixel, 2 * n, buffers[3 + k]);
      if (gradients.output) grad[k] = output.read(pixel, 2 * n, buffers[5 + k]);
    }
    route(x[0], x[1], n, channels, p, pooled.read(first, n, buffers[9]), grad[0], grad[1], of_z[0],
          of_z[1]);
    for (int k = 0; k < 2; ++k)
      body(buffers, chunk, tiles.corner(first) + k * width, 2 * n, x[k], constant(of_z[k]), false);
  });
}

template <class A>
void compute_sums(const Arguments& arguments, const Gradients& gradients, Tensor& sums_out) {
  const int64_t channels = arguments.channels();
  const Parameters<A> parameters(arguments);
  const Channels<A> p = parameters.channels();
  const Tiles tiles(arguments.input, gradients.pooled.has_value());
  std::vector<double> of_chunk(tiles.chunks() * 2 * channels);
  for_each_run<A>(tiles, arguments, gradients, p,
                  [&](A** spare, int64_t chunk, int64_t, int64_t n, const Run<const A> x,
                      const Run<const A> grad, bool relu) {
                    double* const own = &of_chunk[chunk * 2 * channels];
                    sum(x, grad, n, channels, p, relu, spare[0], spare[1]);
                    add_sums(spare[0], channels, own);
                    add_sums(spare[1], channels, own + channels);
                  });
  double* const sums = sums_out.mutable_data_ptr<double>();
  std::fill_n(sums, 2 * channels, 0.0);
  for (int64_t chunk = 0; chunk < tiles.chunks(); ++chunk)
    add_sums(&of_chunk[chunk * 2 * channels], 2 * channels, sums);
  // Without pixels there is no deviation, and both sums are 0.
  for (int64_t c = 0; c < channels && tiles.chunks() > 0; ++c)
    sums[channels + c] *= parameters.inverse[c];
}

template <class A>
void backward(const Arguments& arguments, const Gradients& gradients, const Tensor* sums,
              Tensor& grad_input) {
  const int64_t channels = arguments.channels();
  const Parameters<A> parameters(arguments);
  const Channels<A> p = parameters.channels();
  const Tiles tiles(arguments.input, gradients.pooled.has_value());
  const PixelSink<A> sink(grad_input);
  std::vector<A> shift, slope;
  for (int64_t c = 0; sums && c < channels; ++c) {
    const double* const own = sums->const_data_ptr<double>() + c;
    const auto g = gradient<double>(own[0], own[channels], parameters.weight(c),
                                    parameters.inverse[c], double(count_pixels(arguments.input)));
    shift.push_back(A(g.shift));
    slope.push_back(A(g.slope));
  }
  for_each_run<A>(tiles, arguments, gradients, p,
                  [&](A** spare, int64_t, int64_t first, int64_t n, const Run<const A> x,
                      const Run<const A> grad, bool relu) {
                    const Run<A> out = sink.place(first, spare[2]);
                    differentiate(x, grad, n, channels, p, relu, sums ? shift.data() : nullptr,
                                  slope.data(), out);
                    sink.put(first, n, out);
                  });
}

void moments_cpu(const Tensor& input, Tensor& mean, Tensor& variance) {
  (is_double(input) ? moments<double> : moments<float>)(input, mean, variance);
}

void forward_cpu(const Arguments& arguments, const Tensor* beside, Tensor& output, Tensor* pooled) {
  (is_double(arguments.input) ? forward<double> : forward<float>)(arguments, beside, output,
                                                                  pooled);
}

void sums_cpu(const Arguments& arguments, const Gradients& gradients, Tensor& sums) {
  (is_double(arguments.input) ? compute_sums<double> : compute_sums<float>)(arguments, gradients,
                                                                            sums);
}

void backward_cpu(const Arguments& arguments, const Gradients& gradients, const Tensor* sums,
                  Tensor& grad_input) {
  (is_double(arguments.input) ? backward<double> : backward<float>)(arguments, gradients, sums,
                                                                    grad_input);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("norm_relu_moments", TORCH_BOX(&moments_op<moments_cpu>));
  m.impl("norm_relu", TORCH_BOX(&forward_op<forward_cpu>));
  m.impl("norm_relu_sums_backward", TORCH_BOX(&sums_op<sums_cpu>));
  m.impl("norm_relu_backward", TORCH_BOX(&backward_op<backward_cpu>));
}

}  // namespace ichfast
