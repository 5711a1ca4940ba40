// Tversky loss with cross-entropy. Forward takes five sums per (image, channel), or per channel,
// and leaves three; backward is one pass with three scalars of each. See math/tversky_bce.h for the
// derivation.
#pragma once

#include "kernels/common/chunks.h"
#include "kernels/common/reduce.h"
#include "math/tversky_bce.h"

namespace ichfast {

// The element type of no mask: a tensor of ones that takes no memory and is not read.
struct One {};

template <>
class Row<Input<One>> {
 public:
  ICHFAST_DEVICE Row(const Input<One>&, int64_t, int64_t) {}

  template <int N>
  ICHFAST_DEVICE bool allows(Access, int64_t) const {
    return true;
  }

  template <class A, class S>
  ICHFAST_DEVICE Values<A, S::kWidth> get(S) const {
    Values<A, S::kWidth> result;
#pragma unroll
    for (int k = 0; k < S::kWidth; ++k) result[k] = A(1);
    return result;
  }
};

namespace tversky_bce {

// What both passes read. P, T and M are the elements of logits, target and mask.
template <class P, class T, class M>
struct Inputs {
  Input<P> logits;
  Input<T> target;
  Input<M> mask;
  Input<Floating> pos_weight;  // one number per channel; without data: 1

  template <class A>
  ICHFAST_DEVICE A weight(int64_t channel) const {
    return pos_weight.data ? number<A>(pos_weight, 0, channel) : A(1);
  }
};

// Steps of a thread without a test in between: twice as many spill registers.
template <int kWidth>
inline constexpr int kUnroll = 8 / kWidth;

// Forward, stage one: the sums of each chunk.
// 16-byte accesses: loads, since a block writes no more than its sums.
template <class A, class P, class T, class M, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    sum_chunks(Inputs<P, T, M> inputs, Cut cut, double* slots) {
  constexpr int kWidth = kStepWidth<P, T, M>;
  const Chunk<kWidth, kThreads> chunk(cut);
  const A q = inputs.template weight<A>(chunk.channel);
  const Row z(inputs.logits, chunk.image, chunk.channel);
  const Row t(inputs.target, chunk.image, chunk.channel);
  const Row w(inputs.mask, chunk.image, chunk.channel);
  A sums[kSums] = {};
  const Access access = common_access<kWidth>(chunk.first_vector(), z, t, w);
  chunk.template for_each_step<false, kUnroll<kWidth>>(access, [&](auto step) {
    const auto zs = z.template get<A>(step);
    const auto ts = t.template get<A>(step);
    const auto ws = w.template get<A>(step);
#pragma unroll
    for (int k = 0; k < step.kWidth; ++k) {
      const Contribution<A> voxel = contribution<kHalfType<P>>(zs[k], ts[k], ws[k], q);
      sums[kTP] += voxel.tp;
      sums[kFP] += voxel.fp;
      sums[kFN] += voxel.fn;
      sums[kCE] += voxel.ce;
      sums[kCount] += ws[k];
    }
  });
  const double* const total = block_sum<double, kThreads>(sums);
  if (threadIdx.x < kSums) slots[chunk.slot * kSums + threadIdx.x] = total[threadIdx.x];
}

// Forward, stage two, a block per group: rows are all (image, channel), of which each group has
// one, or those of its channel.
// 16-byte accesses: none, since it reads and writes sums.
template <class A, int kThreads>
__global__ void __launch_bounds__(kThreads)
    finish(const double* slots, Groups groups, Parameters<double> parameters, double* sums,
           A* tversky, A* cross_entropy, A* count) {
  const int64_t g = blockIdx.x;
  const double* const total = group_sum<kThreads, kSums>(slots, blockIdx.x, groups);
  if (threadIdx.x < kSaved) sums[g * kSaved + threadIdx.x] = total[threadIdx.x];
  if (threadIdx.x == 0) {
    tversky[g] = A(tversky::loss(total, parameters));
    cross_entropy[g] = A(total[kCE]);
    count[g] = A(total[kCount]);
  }
}

template <class A, class P, class T, class M, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    differentiate(Input<Floating> grad_tversky, Input<Floating> grad_cross_entropy,
                  Inputs<P, T, M> inputs, const double* sums, Parameters<double> parameters,
                  bool batch, Cut cut, Output<P> grad_logits) {
  constexpr int kWidth = kStepWidth<P, T, M>;
  const Chunk<kWidth, kThreads> chunk(cut);
  __shared__ Gradient<A> shared_gradient;
  if (threadIdx.x == 0) {
    const int64_t image = batch ? 0 : chunk.image;
    const auto g = gradient(sums + (image * cut.channels.divisor() + chunk.channel) * kSaved,
                            parameters, number<double>(grad_tversky, image, chunk.channel),
                            number<double>(grad_cross_entropy, image, chunk.channel));
    shared_gradient = {A(g.constant), A(g.slope), A(g.cross_entropy)};
  }
  __syncthreads();
  const Gradient<A> g = shared_gradient;
  const A q = inputs.template weight<A>(chunk.channel);
  const Row z(inputs.logits, chunk.image, chunk.channel);
  const Row t(inputs.target, chunk.image, chunk.channel);
  const Row w(inputs.mask, chunk.image, chunk.channel);
  const Row out(grad_logits, chunk.image, chunk.channel);
  const Access access = common_access<kWidth>(chunk.first_vector(), z, t, w, out);
  chunk.template for_each_step<false, kUnroll<kWidth>>(access, [&](auto step) {
    const auto zs = z.template get<A>(step);
    const auto ts = t.template get<A>(step);
    const auto ws = w.template get<A>(step);
    Values<A, step.kWidth> result;
#pragma unroll
    for (int k = 0; k < step.kWidth; ++k)
      result[k] = grad_logit<kHalfType<P>>(zs[k], ts[k], ws[k], q, g);
    out.put(step, result);
  });
}

// Doubles that forward needs for its first stage.
template <class P, class T, class M, class Launch>
int64_t slots(int64_t rows, int64_t voxels) {
  return cut_rows<kStepWidth<P, T, M>, Launch>(rows, 1, voxels).blocks() * kSums;
}

template <class A, class P, class T, class M, class Launch>
void forward(const Launch& launch, const Inputs<P, T, M>& inputs,
             const Parameters<double>& parameters, bool batch, int64_t images, int64_t channels,
             int64_t voxels, double* slots, double* sums, A* tversky, A* cross_entropy, A* count) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<P, T, M>, Launch>(images, channels, voxels);
  const int64_t groups = batch ? channels : images * channels;
  launch(sum_chunks<A, P, T, M, kThreads>, cut.blocks(), inputs, cut, slots);
  launch(finish<A, kThreads>, groups, static_cast<const double*>(slots), Groups(cut, groups),
         parameters, sums, tversky, cross_entropy, count);
}

template <class A, class P, class T, class M, class Launch>
void backward(const Launch& launch, Input<Floating> grad_tversky,
              Input<Floating> grad_cross_entropy, const Inputs<P, T, M>& inputs, const double* sums,
              const Parameters<double>& parameters, bool batch, int64_t images, int64_t channels,
              int64_t voxels, Output<P> grad_logits) {
  constexpr int kThreads = Launch::kThreads;
  const Cut cut = cut_rows<kStepWidth<P, T, M>, Launch>(images, channels, voxels);
  launch(differentiate<A, P, T, M, kThreads>, cut.blocks(), grad_tversky, grad_cross_entropy,
         inputs, sums, parameters, batch, cut, grad_logits);
}

}  // namespace tversky_bce
}  // namespace ichfast
