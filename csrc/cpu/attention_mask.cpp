// The masked images on the CPU, forward and backward. See math/attention_mask.h.
#include "math/attention_mask.h"

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace attention_mask;

template <class A>
ICHFAST_INLINE void mask_tile(const A* image, const A* logits, int64_t n, A* background,
                              A* foreground) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Pair<A> pair = masked(image[i], logits[i]);
    background[i] = pair.background;
    foreground[i] = pair.foreground;
  }
}

ICHFAST_SIMD void mask(const float* image, const float* logits, int64_t n, float* background,
                       float* foreground) {
  mask_tile(image, logits, n, background, foreground);
}

void mask(const double* image, const double* logits, int64_t n, double* background,
          double* foreground) {
  mask_tile(image, logits, n, background, foreground);
}

template <class A>
ICHFAST_INLINE void image_tile(const A* logits, const A* background, const A* foreground, int64_t n,
                               A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    out[i] = grad_image(logits[i], Pair<A>{background[i], foreground[i]});
}

ICHFAST_SIMD void image_grad(const float* logits, const float* background, const float* foreground,
                             int64_t n, float* out) {
  image_tile(logits, background, foreground, n, out);
}

void image_grad(const double* logits, const double* background, const double* foreground, int64_t n,
                double* out) {
  image_tile(logits, background, foreground, n, out);
}

template <class A>
ICHFAST_INLINE void logit_tile(const A* image, const A* logits, const A* background,
                               const A* foreground, int64_t n, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    out[i] = grad_logit(image[i], logits[i], Pair<A>{background[i], foreground[i]});
}

ICHFAST_SIMD void logit_grad(const float* image, const float* logits, const float* background,
                             const float* foreground, int64_t n, float* out) {
  logit_tile(image, logits, background, foreground, n, out);
}

void logit_grad(const double* image, const double* logits, const double* background,
                const double* foreground, int64_t n, double* out) {
  logit_tile(image, logits, background, foreground, n, out);
}

template <class A>
void forward(const Tensor& image, const Tensor& logits, Tensor& result) {
  const Source<A> images(image), logit(logits);
  const Sink<A> sink(result);
  const Chunks chunks{image.size(0), voxels(image)};
  chunks.for_each_tile([&](int64_t b, int64_t first, int64_t n, int64_t) {
    A in[2][kTile], out[2][kTile];
    A* const background = sink.place(b, 0, first, out[0]);
    A* const foreground = sink.place(b, 1, first, out[1]);
    mask(images.tile(b, 0, first, n, in[0]), logit.tile(b, 0, first, n, in[1]), n, background,
         foreground);
    sink.put(b, 0, first, n, background);
    sink.put(b, 1, first, n, foreground);
  });
}

template <class A>
void backward(const Tensor& grad, const Tensor& image, const Tensor& logits, Tensor* image_out,
              Tensor* logits_out) {
  const Source<A> grads(grad), images(image), logit(logits);
  const auto image_sink = image_out ? std::optional<Sink<A>>(*image_out) : std::nullopt;
  const auto logit_sink = logits_out ? std::optional<Sink<A>>(*logits_out) : std::nullopt;
  const Chunks chunks{image.size(0), voxels(image)};
  chunks.for_each_tile([&](int64_t b, int64_t first, int64_t n, int64_t) {
    A in[4][kTile], result[kTile];
    const A* const background = grads.tile(b, 0, first, n, in[0]);
    const A* const foreground = grads.tile(b, 1, first, n, in[1]);
    const A* const z = logit.tile(b, 0, first, n, in[2]);
    if (image_sink) {
      A* const out = image_sink->place(b, 0, first, result);
      image_grad(z, background, foreground, n, out);
      image_sink->put(b, 0, first, n, out);
    }
    if (logit_sink) {
      A* const out = logit_sink->place(b, 0, first, result);
      logit_grad(images.tile(b, 0, first, n, in[3]), z, background, foreground, n, out);
      logit_sink->put(b, 0, first, n, out);
    }
  });
}

Tensor attention_mask_cpu(const Tensor& image_in, const Tensor& logits_in) {
  check_image_and_logits("attention_mask", image_in, logits_in);
  const Tensor image = foldable(image_in), logits = foldable(logits_in);
  std::vector<int64_t> size(image.sizes().begin(), image.sizes().end());
  size[1] = 2;
  Tensor result = torch::stable::new_empty(image, size);
  const bool wide = is_double(image) || is_double(logits);
  (wide ? forward<double> : forward<float>)(image, logits, result);
  return result;
}

std::tuple<Tensor, Tensor> attention_mask_backward_cpu(const Tensor& grad_in,
                                                       const Tensor& image_in,
                                                       const Tensor& logits_in, bool image_gradient,
                                                       bool logits_gradient) {
  check_image_and_logits("attention_mask_backward", image_in, logits_in);
  check_pair("attention_mask_backward", "grad", grad_in, image_in);
  const Tensor grad = foldable(grad_in), image = foldable(image_in), logits = foldable(logits_in);
  Tensor image_out = image_gradient ? empty_gradient(image) : torch::stable::new_empty(image, {0});
  Tensor logits_out =
      logits_gradient ? empty_gradient(logits) : torch::stable::new_empty(logits, {0});
  const bool wide = is_double(image) || is_double(logits);
  (wide ? backward<double> : backward<float>)(grad, image, logits,
                                              image_gradient ? &image_out : nullptr,
                                              logits_gradient ? &logits_out : nullptr);
  return {image_out, logits_out};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("attention_mask", TORCH_BOX(&attention_mask_cpu));
  m.impl("attention_mask_backward", TORCH_BOX(&attention_mask_backward_cpu));
}

}  // namespace ichfast
