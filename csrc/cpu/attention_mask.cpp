// The masked images on the CPU, forward and backward. See math/attention_mask.h.
#include "ops/attention_mask.h"

#include <optional>

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
void forward(const Arguments& arguments, Tensor& masked) {
  const Source<A> image(arguments.image), logits(arguments.logits);
  const Sink<A> sink(masked);
  Chunks(arguments.image).for_each_tile([&](const Tile& tile) {
    A in[2][kTile], out[2][kTile];
    A* const background = sink.place(tile, 0, out[0]);
    A* const foreground = sink.place(tile, 1, out[1]);
    mask(image.read(tile, in[0]), logits.read(tile, in[1]), tile.n, background, foreground);
    sink.put(tile, 0, background);
    sink.put(tile, 1, foreground);
  });
}

template <class A>
void backward(const Arguments& arguments, const Tensor& grad, Tensor* image_out,
              Tensor* logits_out) {
  const Source<A> grads(grad), image(arguments.image), logits(arguments.logits);
  const auto image_sink = image_out ? std::optional<Sink<A>>(*image_out) : std::nullopt;
  const auto logit_sink = logits_out ? std::optional<Sink<A>>(*logits_out) : std::nullopt;
  Chunks(arguments.image).for_each_tile([&](const Tile& tile) {
    A in[4][kTile], result[kTile];
    const A* const background = grads.read(tile, 0, in[0]);
    const A* const foreground = grads.read(tile, 1, in[1]);
    const A* const z = logits.read(tile, in[2]);
    if (image_sink) {
      A* const out = image_sink->place(tile, result);
      image_grad(z, background, foreground, tile.n, out);
      image_sink->put(tile, out);
    }
    if (logit_sink) {
      A* const out = logit_sink->place(tile, result);
      logit_grad(image.read(tile, in[3]), z, background, foreground, tile.n, out);
      logit_sink->put(tile, out);
    }
  });
}

void forward_cpu(const Arguments& arguments, Tensor& masked) {
  (arguments.in_double() ? forward<double> : forward<float>)(arguments, masked);
}

void backward_cpu(const Arguments& arguments, const Tensor& grad, Tensor* grad_image,
                  Tensor* grad_logits) {
  (arguments.in_double() ? backward<double> : backward<float>)(arguments, grad, grad_image,
                                                               grad_logits);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("attention_mask", TORCH_BOX(&forward_op<forward_cpu>));
  m.impl("attention_mask_backward", TORCH_BOX(&backward_op<backward_cpu>));
}

}  // namespace ichfast
