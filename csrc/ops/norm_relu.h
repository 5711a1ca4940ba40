// Batch normalisation with ReLU and 2×2 max-pooling as an op: checks and results, once for all
// devices.
#pragma once

#include <optional>
#include <tuple>

#include "common/pixels.h"
#include "math/norm_relu.h"
#include "ops/common/checks.h"

namespace ichfast::norm_relu {

struct Arguments {
  Tensor input;                         // (N, C, H, W) as pixels
  Tensor weight, bias, mean, variance;  // (C,), contiguous; double where the input is, else float
  double eps;
  bool relu;

  int64_t channels() const { return input.size(1); }
};

// That arrive, as pixels and of the input's dtype: one of them, or both.
struct Gradients {
  std::optional<Tensor> output, pooled;
};

// What a device adds: they fill what comes last; what is not wanted or not there is null.
using ComputeMoments = void(const Tensor& input, Tensor& mean, Tensor& variance);
using Forward = void(const Arguments&, const Tensor* beside, Tensor& output, Tensor* pooled);
using ComputeSums = void(const Arguments&, const Gradients&, Tensor& sums);
using Backward = void(const Arguments&, const Gradients&, const Tensor* sums, Tensor& grad_input);

inline ScalarType wide_dtype(const Tensor& input) {
  return is_double(input) ? ScalarType::Double : ScalarType::Float;
}

inline void check_input(const char* op, const Tensor& input) {
  check_floating(op, {{"input", input}});
  STD_TORCH_CHECK(input.dim() == 4, op, ": input must be (N, C, H, W)");
}

inline Arguments check(const char* op, const Tensor& input, const Tensor& weight,
                       const Tensor& bias, const Tensor& mean, const Tensor& variance, double eps,
                       bool relu) {
  check_one_device(op, {{"input", input},
                        {"weight", weight},
                        {"bias", bias},
                        {"mean", mean},
                        {"variance", variance}});
  check_input(op, input);
  for (const Tensor* one : {&weight, &bias, &mean, &variance}) {
    STD_TORCH_CHECK(
        one->dim() == 1 && one->size(0) == input.size(1) && one->scalar_type() == wide_dtype(input),
        op,
        ": weight, bias, mean and variance must be (C,), float64 for float64 input and "
        "else float32");
  }
  return {as_pixels(input),
          torch::stable::contiguous(weight),
          torch::stable::contiguous(bias),
          torch::stable::contiguous(mean),
          torch::stable::contiguous(variance),
          eps,
          relu};
}

inline void check_even(const char* op, const Tensor& input) {
  STD_TORCH_CHECK(input.size(2) % 2 == 0 && input.size(3) % 2 == 0, op,
                  ": pooling needs even sides");
}

inline Gradients check_gradients(const char* op, const std::optional<Tensor>& output,
                                 const std::optional<Tensor>& pooled, const Arguments& arguments) {
  const Tensor& input = arguments.input;
  check_one_device(op, {{"input", input}, {"grad", output}, {"grad_pooled", pooled}});
  STD_TORCH_CHECK(output || pooled, op, ": one gradient at least must arrive");
  Gradients gradients;
  if (output) {
    STD_TORCH_CHECK(
        output->sizes().equals(input.sizes()) && output->scalar_type() == input.scalar_type(), op,
        ": grad must have shape and dtype of input");
    gradients.output = as_pixels(*output);
  }
  if (pooled) {
    check_even(op, input);
    STD_TORCH_CHECK(arguments.relu && pooled->dim() == 4 && pooled->size(0) == input.size(0) &&
                        pooled->size(1) == input.size(1) && 2 * pooled->size(2) == input.size(2) &&
                        2 * pooled->size(3) == input.size(3) &&
                        pooled->scalar_type() == input.scalar_type(),
                    op, ": grad_pooled must have half the sides of input, and its dtype");
    gradients.pooled = as_pixels(*pooled);
  }
  return gradients;
}

template <ComputeMoments* kMoments>
std::tuple<Tensor, Tensor> moments_op(const Tensor& input) {
  check_input("norm_relu_moments", input);
  const auto number = [&] { return allocate(input, {input.size(1)}, wide_dtype(input)); };
  Tensor mean = number(), variance = number();
  kMoments(as_pixels(input), mean, variance);
  return {mean, variance};
}

template <Forward* kForward>
std::tuple<Tensor, Tensor> forward_op(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                      const Tensor& mean, const Tensor& variance,
                                      std::optional<Tensor> beside, double eps, bool relu,
                                      bool pool) {
  const Arguments arguments = check("norm_relu", input, weight, bias, mean, variance, eps, relu);
  const int64_t channels = input.size(1), height = input.size(2), width = input.size(3);
  if (beside) {
    check_one_device("norm_relu", {{"input", input}, {"beside", beside}});
    STD_TORCH_CHECK(beside->dim() == 4 && beside->size(0) == input.size(0) &&
                        beside->size(2) == height && beside->size(3) == width &&
                        beside->scalar_type() == input.scalar_type(),
                    "norm_relu: beside must have the shape of input but for its channels, and its "
                    "dtype");
    beside = as_pixels(*beside);
  }
  if (pool) {
    check_even("norm_relu", input);
    STD_TORCH_CHECK(relu && !beside, "norm_relu: pooling is for ReLU, with nothing beside");
  }
  Tensor output = empty_pixels(input, channels + (beside ? beside->size(1) : 0), height, width);
  Tensor pooled =
      pool ? empty_pixels(input, channels, height / 2, width / 2) : allocate(input, {0});
  kForward(arguments, beside ? &*beside : nullptr, output, pool ? &pooled : nullptr);
  return {output, pooled};
}

template <ComputeSums* kSums>
Tensor sums_op(std::optional<Tensor> grad, std::optional<Tensor> grad_pooled, const Tensor& input,
               const Tensor& weight, const Tensor& bias, const Tensor& mean, const Tensor& variance,
               double eps, bool relu) {
  const char* const op = "norm_relu_sums_backward";
  const Arguments arguments = check(op, input, weight, bias, mean, variance, eps, relu);
  Tensor sums = allocate(input, {2, input.size(1)}, ScalarType::Double);
  kSums(arguments, check_gradients(op, grad, grad_pooled, arguments), sums);
  return sums;
}

template <Backward* kBackward>
Tensor backward_op(std::optional<Tensor> grad, std::optional<Tensor> grad_pooled,
                   const Tensor& input, const Tensor& weight, const Tensor& bias,
                   const Tensor& mean, const Tensor& variance, std::optional<Tensor> sums,
                   double eps, bool relu) {
  const char* const op = "norm_relu_backward";
  const Arguments arguments = check(op, input, weight, bias, mean, variance, eps, relu);
  check_one_device(op, {{"input", input}, {"sums", sums}});
  STD_TORCH_CHECK(!sums || (is_double(*sums) && sums->is_contiguous() && sums->dim() == 2 &&
                            sums->size(0) == 2 && sums->size(1) == input.size(1)),
                  op, ": sums must be (2, C), float64");
  Tensor grad_input = empty_pixels(input, input.size(1), input.size(2), input.size(3));
  kBackward(arguments, check_gradients(op, grad, grad_pooled, arguments), sums ? &*sums : nullptr,
            grad_input);
  return grad_input;
}

}  // namespace ichfast::norm_relu
