// The attention-masked MSE as an op: checks and results, once for all devices.
#pragma once

#include <string>
#include <tuple>

#include "math/attention_wmse.h"
#include "ops/common/attention.h"

namespace ichfast::attention_wmse {

struct Form {
  Balance balance;
  bool sigmoid_r;  // whether the reconstruction is logits
};

struct Arguments {
  Tensor image, logits;   // (B, 1, *spatial)
  Tensor reconstruction;  // (B, 2, *spatial); all three fold
  Form form;

  bool in_double() const {
    return is_double(image) || is_double(logits) || is_double(reconstruction);
  }
};

// What a device adds: they fill what comes last. A gradient that is not asked for is null.
using Forward = void(const Arguments&, Tensor& loss, Tensor& sums);
using Backward = void(const Arguments&, const Tensor& grad_loss, const Tensor& sums,
                      Tensor* grad_logits, Tensor* grad_reconstruction);

inline Balance parse_balance(const char* op, const std::string& balance) {
  if (balance == "paper") return Balance::kPaper;
  STD_TORCH_CHECK(balance == "region", op, ": balance must be 'paper' or 'region', not '", balance,
                  "'");
  return Balance::kRegion;
}

inline Arguments check(const char* op, const Tensor& image, const Tensor& logits,
                       const Tensor& reconstruction, bool sigmoid_r, const std::string& balance) {
  check_image_and_logits(op, image, logits);
  check_pair(op, "reconstruction", reconstruction, image);
  return {foldable(image),
          foldable(logits),
          foldable(reconstruction),
          {parse_balance(op, balance), sigmoid_r}};
}

template <Forward* kForward>
std::tuple<Tensor, Tensor> forward_op(const Tensor& image, const Tensor& logits,
                                      const Tensor& reconstruction, bool sigmoid_r,
                                      const std::string& balance) {
  const Arguments arguments =
      check("attention_wmse", image, logits, reconstruction, sigmoid_r, balance);
  const int64_t images = image.size(0);
  const ScalarType dtype = arguments.in_double() ? ScalarType::Double : ScalarType::Float;
  Tensor loss = allocate(image, {images}, dtype);
  Tensor sums = allocate(image, {images, kSums}, ScalarType::Double);
  kForward(arguments, loss, sums);
  return {loss, sums};
}

template <Backward* kBackward>
std::tuple<Tensor, Tensor> backward_op(const Tensor& grad_loss, const Tensor& image,
                                       const Tensor& logits, const Tensor& reconstruction,
                                       const Tensor& sums, bool sigmoid_r,
                                       const std::string& balance, bool logits_gradient,
                                       bool reconstruction_gradient) {
  const Arguments arguments =
      check("attention_wmse_backward", image, logits, reconstruction, sigmoid_r, balance);
  check_saved("attention_wmse_backward", grad_loss, sums, image.size(0), kSums, {"image", image});
  Tensor grad_logits = empty_gradient(arguments.logits, logits_gradient);
  Tensor grad_reconstruction = empty_gradient(arguments.reconstruction, reconstruction_gradient);
  kBackward(arguments, grad_loss, sums, logits_gradient ? &grad_logits : nullptr,
            reconstruction_gradient ? &grad_reconstruction : nullptr);
  return {grad_logits, grad_reconstruction};
}

}  // namespace ichfast::attention_wmse
