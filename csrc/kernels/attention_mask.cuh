// The masked images, forward and backward. See math/attention_mask.h.
#pragma once

#include "kernels/common/chunks.h"
#include "math/attention_mask.h"

namespace ichfast::attention_mask {

template <class A, class X, class Z, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    mask(Input<X> image, Input<Z> logits, int64_t voxels, Output<X> result) {
  constexpr int kWidth = kStepWidth<X, Z>;
  const Chunk<kWidth, kThreads> chunk(1, voxels);
  const Row x(image, chunk.image, 0);
  const Row z(logits, chunk.image, 0);
  const RowPair out(result, chunk.image);
  const Access access = common_access<kWidth>(chunk.first_vector(), x, z, out);
  chunk.template for_each_step<true, 2>(access, [&](auto step) {
    const auto xs = x.template get<A>(step);
    const auto zs = z.template get<A>(step);
    PairValues<A, step.kWidth> masks;
#pragma unroll
    for (int k = 0; k < step.kWidth; ++k) {
      const auto pair = masked(xs[k], zs[k]);
      masks.background[k] = pair.background;
      masks.foreground[k] = pair.foreground;
    }
    out.put(step, masks);
  });
}

// Either gradient may be left out.
template <class A, class X, class Z, bool kImage, bool kLogits, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    differentiate(Input<X> grad, Input<X> image, Input<Z> logits, int64_t voxels,
                  Output<X> grad_image_out, Output<Z> grad_logits_out) {
  constexpr int kWidth = kStepWidth<X, Z>;
  const Chunk<kWidth, kThreads> chunk(1, voxels);
  const RowPair g(grad, chunk.image);
  const Row x(image, chunk.image, 0);
  const Row z(logits, chunk.image, 0);
  const Row x_out(grad_image_out, chunk.image, 0);
  const Row z_out(grad_logits_out, chunk.image, 0);
  const int64_t first = chunk.first_vector();
  Access access = common_access<kWidth>(first, g, z);
  if (kImage && !x_out.template allows<kWidth>(access, first)) access = Access::kScalar;
  if (kLogits &&
      !(x.template allows<kWidth>(access, first) && z_out.template allows<kWidth>(access, first)))
    access = Access::kScalar;
  chunk.template for_each_step<true, 1>(access, [&](auto step) {
    const auto gs = g.template get<A>(step);
    const auto zs = z.template get<A>(step);
    Values<A, step.kWidth> result;
    if constexpr (kLogits) {
      const auto xs = x.template get<A>(step);
#pragma unroll
      for (int k = 0; k < step.kWidth; ++k)
        result[k] = grad_logit(xs[k], zs[k], Pair<A>{gs.background[k], gs.foreground[k]});
      z_out.put(step, result);
    }
    if constexpr (kImage) {
#pragma unroll
      for (int k = 0; k < step.kWidth; ++k)
        result[k] = grad_image(zs[k], Pair<A>{gs.background[k], gs.foreground[k]});
      x_out.put(step, result);
    }
  });
}

template <class A, class X, class Z, class Launch>
void forward(const Launch& launch, Input<X> image, Input<Z> logits, int64_t images, int64_t voxels,
             Output<X> result) {
  constexpr int kThreads = Launch::kThreads;
  const int64_t chunks = Chunking<kStepWidth<X, Z>, kThreads>::per_row(voxels);
  launch(mask<A, X, Z, kThreads>, images * chunks, image, logits, voxels, result);
}

template <class A, bool kImage, bool kLogits, class X, class Z, class Launch>
void backward(const Launch& launch, Input<X> grad, Input<X> image, Input<Z> logits, int64_t images,
              int64_t voxels, Output<X> grad_image_out, Output<Z> grad_logits_out) {
  constexpr int kThreads = Launch::kThreads;
  const int64_t chunks = Chunking<kStepWidth<X, Z>, kThreads>::per_row(voxels);
  launch(differentiate<A, X, Z, kImage, kLogits, kThreads>, images * chunks, grad, image, logits,
         voxels, grad_image_out, grad_logits_out);
}

}  // namespace ichfast::attention_mask
