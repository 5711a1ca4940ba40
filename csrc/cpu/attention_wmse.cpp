// Area-weighted attention MSE on the CPU. Forward leaves three sums per image; backward reads the
// inputs once more and recomputes the rest. See math/attention_wmse.h for the derivation.
#include "ops/attention_wmse.h"

#include <array>
#include <optional>
#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace attention_wmse;

template <class A>
struct Inputs {  // passed by value: read through a reference, the pointers would keep loops scalar
  const A *image, *logits, *background, *foreground;
};

template <bool kSigmoid, class A>
ICHFAST_INLINE void sum_tile(const Inputs<A> in, int64_t n, A* sums) {
  A mask = 0, background = 0, foreground = 0;
#pragma omp simd reduction(+ : mask, background, foreground)
  for (int64_t i = 0; i < n; ++i) {
    const auto v = voxel(in.image[i], in.logits[i], in.background[i], in.foreground[i], kSigmoid);
    mask += v.mask;
    background += v.residual_b * v.residual_b;
    foreground += v.residual_f * v.residual_f;
  }
  sums[kMask] = mask;
  sums[kBackground] = background;
  sums[kForeground] = foreground;
}

ICHFAST_SIMD void sum(const Inputs<float>& in, bool sigmoid_r, int64_t n, float* sums) {
  sigmoid_r ? sum_tile<true>(in, n, sums) : sum_tile<false>(in, n, sums);
}

void sum(const Inputs<double>& in, bool sigmoid_r, int64_t n, double* sums) {
  sigmoid_r ? sum_tile<true>(in, n, sums) : sum_tile<false>(in, n, sums);
}

template <class A>
struct Outputs {
  A *logits, *background, *foreground;  // logits may be null: not asked for
};

template <bool kSigmoid, bool kLogits, class A>
ICHFAST_INLINE void grad_tile(const Inputs<A> in, const Scale<A> s, int64_t n,
                              const Outputs<A> out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const auto v = voxel(in.image[i], in.logits[i], in.background[i], in.foreground[i], kSigmoid);
    out.background[i] = grad_background(v, s, kSigmoid);
    out.foreground[i] = grad_foreground(v, s, kSigmoid);
    if constexpr (kLogits) out.logits[i] = grad_logit(in.image[i], v, s);
  }
}

template <class A>
ICHFAST_INLINE void grad_tile(const Inputs<A>& in, const Scale<A>& s, bool sigmoid_r, int64_t n,
                              const Outputs<A>& out) {
  if (out.logits) {
    sigmoid_r ? grad_tile<true, true>(in, s, n, out) : grad_tile<false, true>(in, s, n, out);
  } else {
    sigmoid_r ? grad_tile<true, false>(in, s, n, out) : grad_tile<false, false>(in, s, n, out);
  }
}

ICHFAST_SIMD void grad(const Inputs<float>& in, const Scale<float>& s, bool sigmoid_r, int64_t n,
                       const Outputs<float>& out) {
  grad_tile(in, s, sigmoid_r, n, out);
}

void grad(const Inputs<double>& in, const Scale<double>& s, bool sigmoid_r, int64_t n,
          const Outputs<double>& out) {
  grad_tile(in, s, sigmoid_r, n, out);
}

// The tiles of image, logits and both reconstructions at one place.
template <class A>
class Reader {
 public:
  explicit Reader(const Arguments& arguments)
      : image_(arguments.image),
        logits_(arguments.logits),
        reconstruction_(arguments.reconstruction) {}

  Inputs<A> read(const Tile& tile, A (*buffer)[kTile]) const {
    return {image_.read(tile, buffer[0]), logits_.read(tile, buffer[1]),
            reconstruction_.read(tile, 0, buffer[2]), reconstruction_.read(tile, 1, buffer[3])};
  }

 private:
  Source<A> image_, logits_, reconstruction_;
};

template <class A>
void forward(const Arguments& arguments, Tensor& loss_out, Tensor& sums_out) {
  const Reader<A> reader(arguments);
  const int64_t images = arguments.image.size(0);
  double* const sums = sums_out.mutable_data_ptr<double>();
  sum_rows(Chunks(arguments.image), images, sums, [&](const Tile& tile) {
    A buffer[4][kTile];
    std::array<A, kSums> result;
    sum(reader.read(tile, buffer), arguments.sigmoid_r, tile.n, result.data());
    return result;
  });
  A* const out = loss_out.mutable_data_ptr<A>();
  for (int64_t b = 0; b < images; ++b)
    out[b] = A(loss(sums + b * kSums, double(voxels(arguments.image))).value);
}

template <class A>
void backward(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
              Tensor* grad_logits, Tensor& grad_reconstruction) {
  const Reader<A> reader(arguments);
  const Sink<A> r_sink(grad_reconstruction);
  const auto z_sink = grad_logits ? std::optional<Sink<A>>(*grad_logits) : std::nullopt;
  const double n_voxels = double(voxels(arguments.image));
  const std::vector<double> grads = read_numbers(grad_loss);
  std::vector<Scale<A>> scales;
  for (int64_t b = 0; b < arguments.image.size(0); ++b) {
    const auto l = loss(sums.const_data_ptr<double>() + b * kSums, n_voxels);
    const auto s = scale(l, grads[b], n_voxels);
    scales.push_back({A(s.background), A(s.foreground), A(s.area)});
  }
  Chunks(arguments.image).for_each_tile([&](const Tile& tile) {
    A in[4][kTile], out[3][kTile];
    const Outputs<A> places{z_sink ? z_sink->place(tile, out[0]) : nullptr,
                            r_sink.place(tile, 0, out[1]), r_sink.place(tile, 1, out[2])};
    grad(reader.read(tile, in), scales[tile.image], arguments.sigmoid_r, tile.n, places);
    if (z_sink) z_sink->put(tile, places.logits);
    r_sink.put(tile, 0, places.background);
    r_sink.put(tile, 1, places.foreground);
  });
}

void forward_cpu(const Arguments& arguments, Tensor& loss, Tensor& sums) {
  (arguments.in_double() ? forward<double> : forward<float>)(arguments, loss, sums);
}

void backward_cpu(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
                  Tensor* grad_logits, Tensor& grad_reconstruction) {
  (arguments.in_double() ? backward<double> : backward<float>)(arguments, grad_loss, sums,
                                                               grad_logits, grad_reconstruction);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("attention_wmse", TORCH_BOX(&forward_op<forward_cpu>));
  m.impl("attention_wmse_backward", TORCH_BOX(&backward_op<backward_cpu>));
}

}  // namespace ichfast
