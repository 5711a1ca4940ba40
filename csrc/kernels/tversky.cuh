// Tversky loss. Forward leaves three sums per (image, channel), or per channel; backward is one
// pass with two scalars of each. See math/tversky.h for the derivation.
#pragma once

#include "kernels/common/chunks.h"
#include "kernels/common/reduce.h"
#include "math/tversky.h"

namespace ichfast::tversky {

// Forward, stage one: the sums of each chunk.
// 16-byte accesses: loads, since a block writes no more than its sums.
template <bool kSigmoid, class A, class P, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    sum_chunks(Input<P> prediction, Input<T> target, Cut cut, double* slots) {
  constexpr int kWidth = kStepWidth<P, T>;
  const Chunk<kWidth, kThreads> chunk(cut);
  const Row p(prediction, chunk.image, chunk.channel);
  const Row t(target, chunk.image, chunk.channel);
  A sums[kSums] = {};
  const Access access = common_access<kWidth>(chunk.first_vector(), p, t);
  chunk.template for_each_step<false, 16 / kWidth>(access, [&](auto step) {
    const auto ps = p.template get<A>(step);
    const auto ts = t.template get<A>(step);
#pragma unroll
    for (int k = 0; k < step.kWidth; ++k) {
      const Sigmoid<A> y = probability<kSigmoid, kHalfType<P>>(ps[k]);
      sums[kTP] += y.value * ts[k];
      sums[kFP] += y.value * (A(1) - ts[k]);
      sums[kFN] += y.complement * ts[k];
    }
  });
  const double* const total = block_sum<double, kThreads>(sums);
  if (threadIdx.x < kSums) slots[chunk.slot * kSums + threadIdx.x] = total[threadIdx.x];
}

// Forward, stage two, a block per loss: rows are all (image, channel), of which each loss has one,
// or those of its channel.
// 16-byte accesses: none, since it reads and writes sums.
template <class A, int kThreads>
__global__ void __launch_bounds__(kThreads)
    finish(const double* slots, Groups groups, Parameters<double> parameters, double* sums,
           A* losses) {
  const int64_t g = blockIdx.x;
  const double* const total = group_sum<kThreads, kSums>(slots, blockIdx.x, groups);
  if (threadIdx.x < kSums) sums[g * kSums + threadIdx.x] = total[threadIdx.x];
  if (threadIdx.x == 0) losses[g] = A(loss(total, parameters));
}

// 16-byte accesses: stores where kSigmoid is false, since then only the target is read, and it may
// be bytes.
template <bool kSigmoid, class A, class P, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    differentiate(Input<Floating> grad_loss, Input<P> prediction, Input<T> target,
                  const double* sums, Parameters<double> parameters, bool batch, Cut cut,
                  Output<P> grad_prediction) {
  constexpr int kWidth = kStepWidth<P, T>;
  const Chunk<kWidth, kThreads> chunk(cut);
  __shared__ Gradient<A> shared_gradient;
  if (threadIdx.x == 0) {
    const int64_t image = batch ? 0 : chunk.image;
    const double grad = number<double>(grad_loss, image, chunk.channel);
    const auto g =
        gradient(sums + (image * cut.channels.divisor() + chunk.channel) * kSums, parameters, grad);
    shared_gradient = {A(g.constant), A(g.slope)};
  }
  __syncthreads();
  const Gradient<A> g = shared_gradient;
  const Row p(prediction, chunk.image, chunk.channel);
  const Row t(target, chunk.image, chunk.channel);
  const Row out(grad_prediction, chunk.image, chunk.channel);
  const Access access = common_access<kWidth>(chunk.first_vector(), p, t, out);
  chunk.template for_each_step<false, 16 / kWidth>(access, [&](auto step) {
    const auto ts = t.template get<A>(step);
    Values<A, step.kWidth> along;
#pragma unroll
    for (int k = 0; k < step.kWidth; ++k) along[k] = g.constant + g.slope * ts[k];
    if constexpr (kSigmoid) {  // else the prediction need not be read
      const auto ps = p.template get<A>(step);
#pragma unroll
      for (int k = 0; k < step.kWidth; ++k) along[k] *= whole_sigmoid<kHalfType<P>>(ps[k]).slope;
    }
    out.put(step, along);
  });
}

// Doubles that forward needs for its first stage.
template <class P, class T, class Launch>
int64_t slots(int64_t rows, int64_t voxels) {
  return cut_rows<kStepWidth<P, T>, Launch>(rows, 1, voxels).blocks() * kSums;
}

template <bool kSigmoid, class A, class P, class T, class Launch>
void forward(const Launch& launch, Input<P> prediction, Input<T> target,
             const Parameters<double>& parameters, bool batch, int64_t images, int64_t channels,
             int64_t voxels, double* slots, double* sums, A* losses) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<P, T>, Launch>(images, channels, voxels);
  const int64_t groups = batch ? channels : images * channels;
  launch(sum_chunks<kSigmoid, A, P, T, kThreads>, cut.blocks(), prediction, target, cut, slots);
  launch(finish<A, kThreads>, groups, static_cast<const double*>(slots), Groups(cut, groups),
         parameters, sums, losses);
}

template <bool kSigmoid, class A, class P, class T, class Launch>
void backward(const Launch& launch, Input<Floating> grad_loss, Input<P> prediction, Input<T> target,
              const double* sums, const Parameters<double>& parameters, bool batch, int64_t images,
              int64_t channels, int64_t voxels, Output<P> grad_prediction) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<P, T>, Launch>(images, channels, voxels);
  launch(differentiate<kSigmoid, A, P, T, kThreads>, cut.blocks(), grad_loss, prediction, target,
         sums, parameters, batch, cut, grad_prediction);
}

}  // namespace ichfast::tversky
