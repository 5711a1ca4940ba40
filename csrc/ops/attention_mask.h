// The masked images as an op: checks and results, once for all devices.
#pragma once

#include <tuple>
#include <vector>

#include "math/attention_mask.h"
#include "ops/common/attention.h"

namespace ichfast::attention_mask {

struct Arguments {
  Tensor image, logits;  // (B, 1, *spatial); both fold

  bool in_double() const { return is_double(image) || is_double(logits); }
};

// What a device adds: they fill what comes last. A gradient that is not asked for is null.
using Forward = void(const Arguments&, Tensor& masked);
using Backward = void(const Arguments&, const Tensor& grad, Tensor* grad_image,
                      Tensor* grad_logits);

template <Forward* kForward>
Tensor forward_op(const Tensor& image, const Tensor& logits) {
  check_image_and_logits("attention_mask", image, logits);
  const Arguments arguments{foldable(image), foldable(logits)};
  std::vector<int64_t> size(image.sizes().begin(), image.sizes().end());
  size[1] = 2;
  Tensor masked = allocate(image, size);
  kForward(arguments, masked);
  return masked;
}

template <Backward* kBackward>
std::tuple<Tensor, Tensor> backward_op(const Tensor& grad, const Tensor& image,
                                       const Tensor& logits, bool image_gradient,
                                       bool logits_gradient) {
  check_image_and_logits("attention_mask_backward", image, logits);
  check_pair("attention_mask_backward", "grad", grad, image);
  const Arguments arguments{foldable(image), foldable(logits)};
  Tensor grad_image = empty_gradient(arguments.image, image_gradient);
  Tensor grad_logits = empty_gradient(arguments.logits, logits_gradient);
  kBackward(arguments, foldable(grad), image_gradient ? &grad_image : nullptr,
            logits_gradient ? &grad_logits : nullptr);
  return {grad_image, grad_logits};
}

}  // namespace ichfast::attention_mask
