// CT windowing as an op: checks and result, once for all devices.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ops/common/windows.h"

namespace ichfast::ct_window {

struct Arguments {
  Tensor stored;                           // (B, H, W)
  std::optional<Tensor> slope, intercept;  // (B,)
  Tensor windows;                          // (K, 2): level and width
  Function function;
  std::optional<double> padding;
  bool invert;

  // float32 cannot tell all integers of these two apart, and padding is compared for equality.
  bool in_double() const {
    const ScalarType dtype = stored.scalar_type();
    return dtype == ScalarType::Double || dtype == ScalarType::Int || dtype == ScalarType::Long;
  }
};

// What a device adds: it fills the (B, K, H′, W′) images.
using Forward = void(const Arguments&, Tensor& images);

template <Forward* kForward>
Tensor forward_op(const Tensor& stored, std::optional<Tensor> slope,
                  std::optional<Tensor> intercept, const Tensor& windows, std::vector<int64_t> size,
                  const std::string& function, std::optional<double> padding, bool invert,
                  ScalarType dtype) {
  STD_TORCH_CHECK(stored.dim() == 3, "ct_window: stored must be (B, H, W)");
  check_rescale("ct_window", slope, intercept, stored.size(0));
  STD_TORCH_CHECK(windows.dim() == 2 && windows.size(1) == 2,
                  "ct_window: windows must be (K, 2), level and width");
  STD_TORCH_CHECK(
      size.size() == 2 && size[0] > 0 && size[1] > 0 && stored.size(1) > 0 && stored.size(2) > 0,
      "ct_window: size must be two positive integers, and images not empty");
  check_one_device(
      "ct_window",
      {{"stored", stored}, {"slope", slope}, {"intercept", intercept}, {"windows", windows}});
  check_numbers(
      "ct_window",
      {{"stored", stored}, {"slope", slope}, {"intercept", intercept}, {"windows", windows}});
  check_result_dtype("ct_window", dtype);
  const Arguments arguments{
      stored, slope, intercept, windows, parse_function("ct_window", function), padding, invert};
  Tensor images = allocate(stored, {stored.size(0), windows.size(0), size[0], size[1]}, dtype);
  kForward(arguments, images);
  return images;
}

}  // namespace ichfast::ct_window
