// The attention-masked MSE. Forward leaves three sums per image; backward reads the inputs once
// more and recomputes the rest. See math/attention_wmse.h for the derivation.
#pragma once

#include "kernels/common/chunks.h"
#include "kernels/common/reduce.h"
#include "math/attention_wmse.h"

namespace ichfast::attention_wmse {

// Forward, stage one: the sums of each chunk.
// 16-byte accesses: loads, since a block writes no more than its sums.
template <Balance kBalance, bool kSigmoid, class A, class X, class Z, class R, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    sum_chunks(Input<X> image, Input<Z> logits, Input<R> reconstruction, Cut cut, double* slots) {
  constexpr int kWidth = kStepWidth<X, Z, R>;
  const Chunk<kWidth, kThreads> chunk(cut);
  const Row x(image, chunk.image, 0);
  const Row z(logits, chunk.image, 0);
  const RowPair r(reconstruction, chunk.image);
  A sums[kSums] = {};
  const Access access = common_access<kWidth>(chunk.first_vector(), x, z, r);
  chunk.template for_each_step<true, 1>(access, [&](auto step) {
    const auto xs = x.template get<A>(step);
    const auto zs = z.template get<A>(step);
    const auto rs = r.template get<A>(step);
#pragma unroll
    for (int k = 0; k < step.kWidth; ++k) {
      const auto v =
          voxel<kHalfType<Z>>(xs[k], zs[k], rs.background[k], rs.foreground[k], kSigmoid);
      add<kBalance>(v, sums[kMask], sums[kBackground], sums[kForeground]);
    }
  });
  const double* const total = block_sum<double, kThreads>(sums);
  if (threadIdx.x < kSums) slots[chunk.slot * kSums + threadIdx.x] = total[threadIdx.x];
}

// Forward, stage two, a block per image: its sums and its loss.
// 16-byte accesses: none, since it reads and writes sums.
template <class A, int kThreads>
__global__ void __launch_bounds__(kThreads)
    finish(Balance balance, const double* slots, Groups groups, int64_t voxels, double* sums,
           A* losses) {
  const int64_t b = blockIdx.x;
  const double* const total = group_sum<kThreads, kSums>(slots, blockIdx.x, groups);
  if (threadIdx.x < kSums) sums[b * kSums + threadIdx.x] = total[threadIdx.x];
  if (threadIdx.x == 0) losses[b] = A(loss(balance, total, double(voxels)).value);
}

// kRegion in a half type needs more than 64 registers for the eight voxels of a step: a quarter
// fewer threads are resident, whose loads in flight still are twice what hides the latency.
template <Balance kBalance, class A, int kThreads>
inline constexpr int kBlocks =
    kResidentBlocks<A, kThreads> * (kBalance == Balance::kRegion ? 3 : 4) / 4;

// Either gradient may be left out.
template <Balance kBalance, bool kSigmoid, bool kLogits, bool kReconstruction, class A, class X,
          class Z, class R, int kThreads>
__global__ void __launch_bounds__(kThreads, kBlocks<kBalance, A, kThreads>)
    differentiate(Input<Floating> grad_loss, Input<X> image, Input<Z> logits,
                  Input<R> reconstruction, const double* sums, Cut cut, Output<Z> grad_logits,
                  Output<R> grad_reconstruction) {
  constexpr int kWidth = kStepWidth<X, Z, R>;
  const Chunk<kWidth, kThreads> chunk(cut);
  __shared__ Scale<A> shared_scale;
  if (threadIdx.x == 0) {
    const double grad = number<double>(grad_loss, chunk.image);
    const auto l = loss(kBalance, sums + chunk.image * kSums, double(cut.voxels));
    const auto s = scale(kBalance, l, grad, double(cut.voxels));
    shared_scale = {A(s.background), A(s.foreground), A(s.area)};
  }
  __syncthreads();
  const Scale<A> s = shared_scale;
  const Row x(image, chunk.image, 0);
  const Row z(logits, chunk.image, 0);
  const RowPair r(reconstruction, chunk.image);
  const Row z_out(grad_logits, chunk.image, 0);
  const RowPair r_out(grad_reconstruction, chunk.image);
  const int64_t first = chunk.first_vector();
  Access access = common_access<kWidth>(first, x, z, r);
  if (kLogits && !z_out.template allows<kWidth>(access, first)) access = Access::kScalar;
  if (kReconstruction && !r_out.template allows<kWidth>(access, first)) access = Access::kScalar;
  chunk.template for_each_step<true, 1>(access, [&](auto step) {
    const auto xs = x.template get<A>(step);
    const auto zs = z.template get<A>(step);
    const auto rs = r.template get<A>(step);
    Values<A, step.kWidth> z_grad;
    PairValues<A, step.kWidth> r_grad;
#pragma unroll
    for (int k = 0; k < step.kWidth; ++k) {
      const auto v =
          voxel<kHalfType<Z>>(xs[k], zs[k], rs.background[k], rs.foreground[k], kSigmoid);
      if constexpr (kReconstruction) {
        r_grad.background[k] = grad_background<kBalance>(v, s, kSigmoid);
        r_grad.foreground[k] = grad_foreground<kBalance>(v, s, kSigmoid);
      }
      if constexpr (kLogits) z_grad[k] = grad_logit<kBalance>(xs[k], v, s);
    }
    if constexpr (kReconstruction) r_out.put(step, r_grad);
    if constexpr (kLogits) z_out.put(step, z_grad);
  });
}

// Doubles that forward needs for its first stage.
template <class X, class Z, class R, class Launch>
int64_t slots(int64_t images, int64_t voxels) {
  return cut_rows<kStepWidth<X, Z, R>, Launch>(images, 1, voxels).blocks() * kSums;
}

template <Balance kBalance, bool kSigmoid, class A, class X, class Z, class R, class Launch>
void forward(const Launch& launch, Input<X> image, Input<Z> logits, Input<R> reconstruction,
             int64_t images, int64_t voxels, double* slots, double* sums, A* losses) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<X, Z, R>, Launch>(images, 1, voxels);
  launch(sum_chunks<kBalance, kSigmoid, A, X, Z, R, kThreads>, cut.blocks(), image, logits,
         reconstruction, cut, slots);
  launch(finish<A, kThreads>, images, kBalance, static_cast<const double*>(slots),
         Groups(cut, images), voxels, sums, losses);
}

template <Balance kBalance, bool kSigmoid, bool kLogits, bool kReconstruction, class A, class X,
          class Z, class R, class Launch>
void backward(const Launch& launch, Input<Floating> grad_loss, Input<X> image, Input<Z> logits,
              Input<R> reconstruction, const double* sums, int64_t images, int64_t voxels,
              Output<Z> grad_logits, Output<R> grad_reconstruction) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<X, Z, R>, Launch>(images, 1, voxels);
  launch(differentiate<kBalance, kSigmoid, kLogits, kReconstruction, A, X, Z, R, kThreads>,
         cut.blocks(), grad_loss, image, logits, reconstruction, sums, cut, grad_logits,
         grad_reconstruction);
}

}  // namespace ichfast::attention_wmse
