// The Tversky loss as an op: checks and results, once for all devices.
#pragma once

#include <tuple>

#include "math/tversky.h"
#include "ops/common/checks.h"

namespace ichfast::tversky {

struct Arguments {
  Tensor prediction, target;  // (B, C, *spatial); both fold
  Parameters<double> parameters;
  bool sigmoid, batch;

  // One for each (image, channel), or for each channel of the whole batch.
  int64_t losses() const { return (batch ? 1 : prediction.size(0)) * prediction.size(1); }
};

// What a device adds: they fill what comes last.
using Forward = void(const Arguments&, Tensor& loss, Tensor& sums);
using Backward = void(const Arguments&, const Tensor& grad_loss, const Tensor& sums,
                      Tensor& grad_prediction);

inline void check(const char* op, const Tensor& prediction, const Tensor& target) {
  check_same_shape(op, prediction, target);
  check_one_device(op, {{"prediction", prediction}, {"target", target}});
  check_floating(op, {{"prediction", prediction}});
  check_mask(op, {{"target", target}});
}

template <Forward* kForward>
std::tuple<Tensor, Tensor> forward_op(const Tensor& prediction, const Tensor& target, double alpha,
                                      double beta, double smooth_nr, double smooth_dr, bool sigmoid,
                                      bool batch) {
  check("tversky", prediction, target);
  const Arguments arguments{
      foldable(prediction), foldable(target), {alpha, beta, smooth_nr, smooth_dr}, sigmoid, batch};
  const int64_t images = prediction.size(0), channels = prediction.size(1);
  const ScalarType dtype = is_double(prediction) ? ScalarType::Double : ScalarType::Float;
  Tensor loss = batch ? allocate(prediction, {channels}, dtype)
                      : allocate(prediction, {images, channels}, dtype);
  Tensor sums = allocate(prediction, {arguments.losses(), kSums}, ScalarType::Double);
  kForward(arguments, loss, sums);
  return {loss, sums};
}

template <Backward* kBackward>
Tensor backward_op(const Tensor& grad_loss, const Tensor& prediction, const Tensor& target,
                   const Tensor& sums, double alpha, double beta, double smooth_nr,
                   double smooth_dr, bool sigmoid, bool batch) {
  check("tversky_backward", prediction, target);
  const Arguments arguments{
      foldable(prediction), foldable(target), {alpha, beta, smooth_nr, smooth_dr}, sigmoid, batch};
  check_saved("tversky_backward", grad_loss, sums, arguments.losses(), kSums,
              {"prediction", prediction});
  Tensor grad_prediction = empty_gradient(arguments.prediction);
  kBackward(arguments, grad_loss, sums, grad_prediction);
  return grad_prediction;
}

}  // namespace ichfast::tversky
