// Every op's schema, in one place. Kernels register themselves in cpu/<op>.cpp; what each op
// computes, and its shapes, stand in ichfast/ops/<op>.py.
#include "common/torch.h"

STABLE_TORCH_LIBRARY(ichfast, m) {
  m.def(
      "tversky(Tensor prediction, Tensor target, float alpha, float beta, float smooth_nr, "
      "float smooth_dr, bool sigmoid, bool batch) -> (Tensor loss, Tensor sums)");
  m.def(
      "tversky_backward(Tensor grad, Tensor prediction, Tensor target, Tensor sums, float alpha, "
      "float beta, float smooth_nr, float smooth_dr, bool sigmoid, bool batch) -> Tensor");
  m.def(
      "tversky_bce(Tensor logits, Tensor target, Tensor? mask, Tensor? pos_weight, float alpha, "
      "float beta, float smooth_nr, float smooth_dr, bool batch) "
      "-> (Tensor tversky, Tensor cross_entropy, Tensor count, Tensor sums)");
  m.def(
      "tversky_bce_backward(Tensor grad_tversky, Tensor grad_cross_entropy, Tensor logits, "
      "Tensor target, Tensor? mask, Tensor? pos_weight, Tensor sums, float alpha, float beta, "
      "float smooth_nr, float smooth_dr, bool batch) -> Tensor");
  m.def(
      "attention_wmse(Tensor image, Tensor logits, Tensor reconstruction, "
      "bool sigmoid_reconstruction, str balance) -> (Tensor loss, Tensor sums)");
  m.def(
      "attention_wmse_backward(Tensor grad, Tensor image, Tensor logits, Tensor reconstruction, "
      "Tensor sums, bool sigmoid_reconstruction, str balance, bool logits_gradient, "
      "bool reconstruction_gradient) -> (Tensor logits, Tensor reconstruction)");
  m.def("attention_mask(Tensor image, Tensor logits) -> Tensor");
  m.def(
      "attention_mask_backward(Tensor grad, Tensor image, Tensor logits, bool image_gradient, "
      "bool logits_gradient) -> (Tensor image, Tensor logits)");
  m.def(
      "ct_window(Tensor stored, Tensor? slope, Tensor? intercept, Tensor windows, int[2] size, "
      "str function, float? padding, bool invert, ScalarType dtype) -> Tensor");
  m.def(
      "pool_batch(Tensor pool, Tensor? masks, Tensor indices, Tensor theta, Tensor? slope, "
      "Tensor? intercept, Tensor windows, int[2] size, str function, ScalarType dtype) "
      "-> (Tensor images, Tensor masks)");
  m.def(
      "paste(Tensor image, Tensor? target, Tensor source, Tensor? source_target, Tensor region, "
      "Tensor feather, float low, float high) -> (Tensor image, Tensor target)");
  m.def(
      "strong_view(Tensor image, Tensor gamma, Tensor blur, Tensor noise, Tensor seed) -> Tensor");
  m.def("norm_relu_moments(Tensor input) -> (Tensor mean, Tensor variance)");
  m.def(
      "norm_relu(Tensor input, Tensor weight, Tensor bias, Tensor mean, Tensor variance, "
      "Tensor? beside, float eps, bool relu, bool pool) -> (Tensor output, Tensor pooled)");
  m.def(
      "norm_relu_sums_backward(Tensor? grad, Tensor? grad_pooled, Tensor input, Tensor weight, "
      "Tensor bias, Tensor mean, Tensor variance, float eps, bool relu) -> Tensor");
  m.def(
      "norm_relu_backward(Tensor? grad, Tensor? grad_pooled, Tensor input, Tensor weight, "
      "Tensor bias, Tensor mean, Tensor variance, Tensor? sums, float eps, bool relu) -> Tensor");
  m.def("overlap_counts(Tensor prediction, Tensor target, float threshold) -> Tensor");
}
