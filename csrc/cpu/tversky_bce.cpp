// Tversky loss with cross-entropy on the CPU. Forward takes five sums per (image, channel), or per
// channel, and leaves three; backward is one pass with three scalars of each. See
// math/tversky_bce.h.
#include "ops/tversky_bce.h"

#include <algorithm>
#include <array>
#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace tversky_bce;

template <bool kMask, class A>
ICHFAST_INLINE void sum_tile(const A* logits, const A* target, const A* mask, A q, int64_t n,
                             A* sums) {
  A tp = 0, fp = 0, fn = 0, ce = 0, count = 0;
#pragma omp simd reduction(+ : tp, fp, fn, ce, count)
  for (int64_t i = 0; i < n; ++i) {
    const A w = kMask ? mask[i] : A(1);
    const Contribution<A> voxel = contribution(logits[i], target[i], w, q);
    tp += voxel.tp;
    fp += voxel.fp;
    fn += voxel.fn;
    ce += voxel.ce;
    count += w;
  }
  sums[kTP] = tp;
  sums[kFP] = fp;
  sums[kFN] = fn;
  sums[kCE] = ce;
  sums[kCount] = count;
}

ICHFAST_SIMD void sum(const float* logits, const float* target, const float* mask, float q,
                      int64_t n, float* sums) {
  mask ? sum_tile<true>(logits, target, mask, q, n, sums)
       : sum_tile<false>(logits, target, mask, q, n, sums);
}

void sum(const double* logits, const double* target, const double* mask, double q, int64_t n,
         double* sums) {
  mask ? sum_tile<true>(logits, target, mask, q, n, sums)
       : sum_tile<false>(logits, target, mask, q, n, sums);
}

template <bool kMask, class A>
ICHFAST_INLINE void grad_tile(const A* logits, const A* target, const A* mask, A q,
                              const Gradient<A> g, int64_t n, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i)
    out[i] = grad_logit(logits[i], target[i], kMask ? mask[i] : A(1), q, g);
}

ICHFAST_SIMD void grad(const float* logits, const float* target, const float* mask, float q,
                       const Gradient<float>& g, int64_t n, float* out) {
  mask ? grad_tile<true>(logits, target, mask, q, g, n, out)
       : grad_tile<false>(logits, target, mask, q, g, n, out);
}

void grad(const double* logits, const double* target, const double* mask, double q,
          const Gradient<double>& g, int64_t n, double* out) {
  mask ? grad_tile<true>(logits, target, mask, q, g, n, out)
       : grad_tile<false>(logits, target, mask, q, g, n, out);
}

template <class A>
std::vector<A> read_pos_weight(const Arguments& arguments) {
  if (!arguments.pos_weight) return std::vector<A>(arguments.logits.size(1), A(1));
  const std::vector<double> numbers = read_numbers(*arguments.pos_weight);
  return {numbers.begin(), numbers.end()};
}

template <class A>
std::optional<Source<A>> read_mask(const Arguments& arguments) {
  return arguments.mask ? std::optional<Source<A>>(*arguments.mask) : std::nullopt;
}

template <class A>
void forward(const Arguments& arguments, Results& results) {
  const Source<A> logits(arguments.logits), target(arguments.target);
  const auto mask = read_mask<A>(arguments);
  const std::vector<A> q = read_pos_weight<A>(arguments);
  std::vector<double> sums(arguments.groups() * kSums);
  sum_rows(Chunks(arguments.logits), arguments.groups(), sums.data(), [&](const Tile& tile) {
    A buffer[3][kTile];
    std::array<A, kSums> result;
    sum(logits.read(tile, buffer[0]), target.read(tile, buffer[1]),
        mask ? mask->read(tile, buffer[2]) : nullptr, q[tile.channel], tile.n, result.data());
    return result;
  });
  A* const tversky = results.tversky.mutable_data_ptr<A>();
  A* const cross_entropy = results.cross_entropy.mutable_data_ptr<A>();
  A* const count = results.count.mutable_data_ptr<A>();
  double* const saved = results.sums.mutable_data_ptr<double>();
  for (int64_t i = 0; i < arguments.groups(); ++i) {
    const double* const of_group = sums.data() + i * kSums;
    std::copy_n(of_group, kSaved, saved + i * kSaved);
    tversky[i] = A(tversky::loss(of_group, arguments.parameters));
    cross_entropy[i] = A(of_group[kCE]);
    count[i] = A(of_group[kCount]);
  }
}

template <class A>
void backward(const Arguments& arguments, const Tensor& grad_tversky,
              const Tensor& grad_cross_entropy, const Tensor& sums, Tensor& grad_logits) {
  const Source<A> logits(arguments.logits), target(arguments.target);
  const auto mask = read_mask<A>(arguments);
  const std::vector<A> q = read_pos_weight<A>(arguments);
  const Sink<A> sink(grad_logits);
  const std::vector<double> of_tversky = read_numbers(grad_tversky);
  const std::vector<double> of_cross_entropy = read_numbers(grad_cross_entropy);
  std::vector<Gradient<A>> gradients;
  for (int64_t i = 0; i < arguments.groups(); ++i) {
    const auto g = gradient(sums.const_data_ptr<double>() + i * kSaved, arguments.parameters,
                            of_tversky[i], of_cross_entropy[i]);
    gradients.push_back({A(g.constant), A(g.slope), A(g.cross_entropy)});
  }
  Chunks(arguments.logits).for_each_tile([&](const Tile& tile) {
    A buffer[3][kTile], result[kTile];
    A* const out = sink.place(tile, result);
    grad(logits.read(tile, buffer[0]), target.read(tile, buffer[1]),
         mask ? mask->read(tile, buffer[2]) : nullptr, q[tile.channel],
         gradients[tile.row % gradients.size()], tile.n, out);
    sink.put(tile, out);
  });
}

void forward_cpu(const Arguments& arguments, Results& results) {
  (is_double(arguments.logits) ? forward<double> : forward<float>)(arguments, results);
}

void backward_cpu(const Arguments& arguments, const Tensor& grad_tversky,
                  const Tensor& grad_cross_entropy, const Tensor& sums, Tensor& grad_logits) {
  (is_double(arguments.logits) ? backward<double> : backward<float>)(arguments, grad_tversky,
                                                                     grad_cross_entropy, sums,
                                                                     grad_logits);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("tversky_bce", TORCH_BOX(&forward_op<forward_cpu>));
  m.impl("tversky_bce_backward", TORCH_BOX(&backward_op<backward_cpu>));
}

}  // namespace ichfast
