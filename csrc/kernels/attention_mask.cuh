// The masked images, forward and backward. See math/attention_mask.h.
#pragma once

#include "kernels/common/chunks.h"
#include "math/attention_mask.h"

namespace ichfast {

// The element type of a gradient that is one number for all voxels of a channel, as a sum or a mean
// hands back: expanded, with stride 0, which no vector access could read.
template <class T>
struct Repeated {};

template <class T>
struct View<Repeated<T>, true> {
  const T* data;
  Strides strides;
};

template <class T>
class RowPair<Input<Repeated<T>>> {
 public:
  ICHFAST_DEVICE RowPair(const Input<Repeated<T>>& view, int64_t image)
      : background_(view.data[image * view.strides.image]),
        foreground_(view.data[image * view.strides.image + view.strides.channel]) {}

  template <int N>
  ICHFAST_DEVICE bool allows(Access, int64_t) const {
    return true;
  }

  template <class A, class S>
  ICHFAST_DEVICE PairValues<A, S::kWidth> get(S) const {
    PairValues<A, S::kWidth> result;
#pragma unroll
    for (int k = 0; k < S::kWidth; ++k) {
      result.background[k] = widen<A>(background_);
      result.foreground[k] = widen<A>(foreground_);
    }
    return result;
  }

 private:
  T background_, foreground_;
};

namespace attention_mask {

template <class A, class X, class Z, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    mask(Input<X> image, Input<Z> logits, Cut cut, Output<X> result) {
  constexpr int kWidth = kStepWidth<X, Z>;
  const Chunk<kWidth, kThreads> chunk(cut);
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
      const auto pair = masked<kHalfType<Z>>(xs[k], zs[k]);
      masks.background[k] = pair.background;
      masks.foreground[k] = pair.foreground;
    }
    out.put(step, masks);
  });
}

// Either gradient may be left out. G is X, or Repeated<X>.
// 16-byte accesses: stores where kLogits is false, since then, of a repeated gradient, only the
// logits are read, and they may be half as wide as the image.
template <class A, class G, class X, class Z, bool kImage, bool kLogits, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    differentiate(Input<G> grad, Input<X> image, Input<Z> logits, Cut cut, Output<X> grad_image_out,
                  Output<Z> grad_logits_out) {
  constexpr int kWidth = kStepWidth<X, Z>;
  const Chunk<kWidth, kThreads> chunk(cut);
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
        result[k] =
            grad_logit<kHalfType<Z>>(xs[k], zs[k], Pair<A>{gs.background[k], gs.foreground[k]});
      z_out.put(step, result);
    }
    if constexpr (kImage) {
#pragma unroll
      for (int k = 0; k < step.kWidth; ++k)
        result[k] = grad_image<kHalfType<Z>>(zs[k], Pair<A>{gs.background[k], gs.foreground[k]});
      x_out.put(step, result);
    }
  });
}

template <class A, class X, class Z, class Launch>
void forward(const Launch& launch, Input<X> image, Input<Z> logits, int64_t images, int64_t voxels,
             Output<X> result) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<X, Z>, Launch>(images, 1, voxels);
  launch(mask<A, X, Z, kThreads>, cut.blocks(), image, logits, cut, result);
}

template <class A, bool kImage, bool kLogits, class G, class X, class Z, class Launch>
void backward(const Launch& launch, Input<G> grad, Input<X> image, Input<Z> logits, int64_t images,
              int64_t voxels, Output<X> grad_image_out, Output<Z> grad_logits_out) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<X, Z>, Launch>(images, 1, voxels);
  launch(differentiate<A, G, X, Z, kImage, kLogits, kThreads>, cut.blocks(), grad, image, logits,
         cut, grad_image_out, grad_logits_out);
}

}  // namespace attention_mask
}  // namespace ichfast
