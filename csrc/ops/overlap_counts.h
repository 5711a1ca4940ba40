// The confusion counts as an op: checks and result, once for all devices.
#pragma once

#include "math/overlap_counts.h"
#include "ops/common/checks.h"

namespace ichfast::overlap_counts {

struct Arguments {
  Tensor prediction, target;  // (B, C, *spatial); both fold
  double threshold;
};

// What a device adds: it fills the (B, C, 3) counts.
using Forward = void(const Arguments&, Tensor& counts);

template <Forward* kForward>
Tensor forward_op(const Tensor& prediction, const Tensor& target, double threshold) {
  check_same_shape("overlap_counts", prediction, target);
  check_one_device("overlap_counts", {{"prediction", prediction}, {"target", target}});
  check_floating("overlap_counts", {{"prediction", prediction}});
  check_mask("overlap_counts", {{"target", target}});
  const Arguments arguments{foldable(prediction), foldable(target), threshold};
  Tensor counts =
      allocate(prediction, {prediction.size(0), prediction.size(1), kNaN}, ScalarType::Long);
  kForward(arguments, counts);
  return counts;
}

}  // namespace ichfast::overlap_counts
