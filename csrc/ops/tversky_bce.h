// The Tversky loss with the cross-entropy as an op: checks and results, once for all devices.
#pragma once

#include <optional>
#include <tuple>

#include "math/tversky_bce.h"
#include "ops/common/checks.h"

namespace ichfast::tversky_bce {

struct Arguments {
  Tensor logits, target;             // (B, C, *spatial)
  std::optional<Tensor> mask;        // the same; all three fold
  std::optional<Tensor> pos_weight;  // (C,)
  Parameters<double> parameters;
  bool batch;

  // Sums of each kind: one for each (image, channel), or for each channel of the whole batch.
  int64_t groups() const { return (batch ? 1 : logits.size(0)) * logits.size(1); }
};

// What a device adds: they fill what comes last.
struct Results {
  Tensor tversky, cross_entropy, count, sums;
};
using Forward = void(const Arguments&, Results&);
using Backward = void(const Arguments&, const Tensor& grad_tversky,
                      const Tensor& grad_cross_entropy, const Tensor& sums, Tensor& grad_logits);

inline Arguments check(const char* op, const Tensor& logits, const Tensor& target,
                       const std::optional<Tensor>& mask, const std::optional<Tensor>& pos_weight,
                       Parameters<double> parameters, bool batch) {
  STD_TORCH_CHECK(logits.dim() >= 3 && logits.sizes().equals(target.sizes()) &&
                      (!mask || logits.sizes().equals(mask->sizes())),
                  op, ": logits, target and mask must be (B, C, *spatial) of one shape");
  STD_TORCH_CHECK(!pos_weight || (pos_weight->dim() == 1 && pos_weight->size(0) == logits.size(1)),
                  op, ": pos_weight must be (C,)");
  check_one_device(
      op, {{"logits", logits}, {"target", target}, {"mask", mask}, {"pos_weight", pos_weight}});
  check_floating(op, {{"logits", logits}, {"pos_weight", pos_weight}});
  check_mask(op, {{"target", target}, {"mask", mask}});
  return {foldable(logits), foldable(target), mask ? std::optional(foldable(*mask)) : std::nullopt,
          pos_weight,       parameters,       batch};
}

template <Forward* kForward>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward_op(const Tensor& logits, const Tensor& target,
                                                      std::optional<Tensor> mask,
                                                      std::optional<Tensor> pos_weight,
                                                      double alpha, double beta, double smooth_nr,
                                                      double smooth_dr, bool batch) {
  const Arguments arguments = check("tversky_bce", logits, target, mask, pos_weight,
                                    {alpha, beta, smooth_nr, smooth_dr}, batch);
  const auto per_group = [&] {
    const ScalarType dtype = is_double(logits) ? ScalarType::Double : ScalarType::Float;
    return batch ? allocate(logits, {logits.size(1)}, dtype)
                 : allocate(logits, {logits.size(0), logits.size(1)}, dtype);
  };
  Results results{per_group(), per_group(), per_group(),
                  allocate(logits, {arguments.groups(), kSaved}, ScalarType::Double)};
  kForward(arguments, results);
  return {results.tversky, results.cross_entropy, results.count, results.sums};
}

template <Backward* kBackward>
Tensor backward_op(const Tensor& grad_tversky, const Tensor& grad_cross_entropy,
                   const Tensor& logits, const Tensor& target, std::optional<Tensor> mask,
                   std::optional<Tensor> pos_weight, const Tensor& sums, double alpha, double beta,
                   double smooth_nr, double smooth_dr, bool batch) {
  const Arguments arguments = check("tversky_bce_backward", logits, target, mask, pos_weight,
                                    {alpha, beta, smooth_nr, smooth_dr}, batch);
  for (const Tensor* grad : {&grad_tversky, &grad_cross_entropy})
    check_saved("tversky_bce_backward", *grad, sums, arguments.groups(), kSaved,
                {"logits", logits});
  Tensor grad_logits = empty_gradient(arguments.logits);
  kBackward(arguments, grad_tversky, grad_cross_entropy, sums, grad_logits);
  return grad_logits;
}

}  // namespace ichfast::tversky_bce
