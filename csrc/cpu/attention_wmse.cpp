// Area-weighted attention MSE on the CPU. Forward leaves three sums per image; backward reads the
// inputs once more and recomputes the rest. See math/attention_wmse.h for the derivation.
#include "math/attention_wmse.h"

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
  Reader(const Tensor& image, const Tensor& logits, const Tensor& reconstruction)
      : image_(image), logits_(logits), reconstruction_(reconstruction) {}

  Inputs<A> tile(int64_t b, int64_t first, int64_t n, A (*buffer)[kTile]) const {
    return {image_.tile(b, 0, first, n, buffer[0]), logits_.tile(b, 0, first, n, buffer[1]),
            reconstruction_.tile(b, 0, first, n, buffer[2]),
            reconstruction_.tile(b, 1, first, n, buffer[3])};
  }

 private:
  Source<A> image_, logits_, reconstruction_;
};

template <class A>
void forward(const Tensor& image, const Tensor& logits, const Tensor& reconstruction,
             bool sigmoid_r, Tensor& loss_out, Tensor& sums_out) {
  const Reader<A> reader(image, logits, reconstruction);
  const Chunks chunks{image.size(0), voxels(image)};
  Tensor partial = zeros(image, {chunks.count(), kSums});
  double* const p = partial.mutable_data_ptr<double>();
  chunks.for_each_tile([&](int64_t b, int64_t first, int64_t n, int64_t chunk) {
    A buffer[4][kTile], tile_sums[kSums];
    sum(reader.tile(b, first, n, buffer), sigmoid_r, n, tile_sums);
    for (int j = 0; j < kSums; ++j) p[chunk * kSums + j] += tile_sums[j];
  });
  double* const sums = sums_out.mutable_data_ptr<double>();
  sum_chunks(chunks, p, kSums, sums);
  A* const losses = loss_out.mutable_data_ptr<A>();
  for (int64_t b = 0; b < chunks.rows; ++b)
    losses[b] = A(loss(sums + b * kSums, double(chunks.voxels)).value);
}

template <class A>
void backward(const Tensor& grad_loss, const Tensor& image, const Tensor& logits,
              const Tensor& reconstruction, const Tensor& sums, bool sigmoid_r, Tensor* grad_logits,
              Tensor& grad_reconstruction) {
  const Reader<A> reader(image, logits, reconstruction);
  const Sink<A> r_sink(grad_reconstruction);
  const auto z_sink = grad_logits ? std::optional<Sink<A>>(*grad_logits) : std::nullopt;
  const Chunks chunks{image.size(0), voxels(image)};
  const double n_voxels = double(chunks.voxels);
  std::vector<Scale<A>> scales;
  for (int64_t b = 0; b < chunks.rows; ++b) {
    double buffer;
    const double g = *load(grad_loss.scalar_type(), grad_loss.const_data_ptr(),
                           b * grad_loss.stride(0), 1, 1, &buffer);
    const auto l = loss(sums.const_data_ptr<double>() + b * kSums, n_voxels);
    const auto s = scale(l, g, n_voxels);
    scales.push_back({A(s.background), A(s.foreground), A(s.area)});
  }
  chunks.for_each_tile([&](int64_t b, int64_t first, int64_t n, int64_t) {
    A in[4][kTile], out[3][kTile];
    const Outputs<A> places{z_sink ? z_sink->place(b, 0, first, out[0]) : nullptr,
                            r_sink.place(b, 0, first, out[1]), r_sink.place(b, 1, first, out[2])};
    grad(reader.tile(b, first, n, in), scales[b], sigmoid_r, n, places);
    if (z_sink) z_sink->put(b, 0, first, n, places.logits);
    r_sink.put(b, 0, first, n, places.background);
    r_sink.put(b, 1, first, n, places.foreground);
  });
}

bool any_double(const Tensor& image, const Tensor& logits, const Tensor& reconstruction) {
  return is_double(image) || is_double(logits) || is_double(reconstruction);
}

std::tuple<Tensor, Tensor> attention_wmse_cpu(const Tensor& image_in, const Tensor& logits_in,
                                              const Tensor& reconstruction_in, bool sigmoid_r) {
  check_image_and_logits("attention_wmse", image_in, logits_in);
  check_pair("attention_wmse", "reconstruction", reconstruction_in, image_in);
  const Tensor image = foldable(image_in), logits = foldable(logits_in),
               reconstruction = foldable(reconstruction_in);
  const bool wide = any_double(image, logits, reconstruction);
  Tensor loss = torch::stable::new_empty(image, {image.size(0)},
                                         wide ? ScalarType::Double : ScalarType::Float);
  Tensor sums = torch::stable::new_empty(image, {image.size(0), kSums}, ScalarType::Double);
  (wide ? forward<double> : forward<float>)(image, logits, reconstruction, sigmoid_r, loss, sums);
  return {loss, sums};
}

std::tuple<Tensor, Tensor> attention_wmse_backward_cpu(
    const Tensor& grad_loss, const Tensor& image_in, const Tensor& logits_in,
    const Tensor& reconstruction_in, const Tensor& sums, bool sigmoid_r, bool logits_gradient) {
  check_image_and_logits("attention_wmse_backward", image_in, logits_in);
  check_pair("attention_wmse_backward", "reconstruction", reconstruction_in, image_in);
  const Tensor image = foldable(image_in), logits = foldable(logits_in),
               reconstruction = foldable(reconstruction_in);
  check_saved("attention_wmse_backward", grad_loss, sums, image.size(0), kSums);
  Tensor grad_logits =
      logits_gradient ? empty_gradient(logits) : torch::stable::new_empty(logits, {0});
  Tensor grad_reconstruction = empty_gradient(reconstruction);
  const bool wide = any_double(image, logits, reconstruction);
  (wide ? backward<double> : backward<float>)(grad_loss, image, logits, reconstruction, sums,
                                              sigmoid_r, logits_gradient ? &grad_logits : nullptr,
                                              grad_reconstruction);
  return {grad_logits, grad_reconstruction};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("attention_wmse", TORCH_BOX(&attention_wmse_cpu));
  m.impl("attention_wmse_backward", TORCH_BOX(&attention_wmse_backward_cpu));
}

}  // namespace ichfast
