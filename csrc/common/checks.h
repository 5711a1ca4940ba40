// The shapes that each op takes, for the CPU and the CUDA kernels alike. The Python functions say
// the same in more words; this guards calls of the raw ops.
#pragma once

#include <string>

#include "common/layout.h"
#include "math/ct_window.h"

namespace ichfast {

inline bool is_double(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double;
}

inline void check_same_shape(const char* op, const Tensor& prediction, const Tensor& target) {
  STD_TORCH_CHECK(prediction.dim() >= 3 && prediction.sizes().equals(target.sizes()), op,
                  ": prediction and target must be (B, C, *spatial) of one shape");
}

inline void check_image_and_logits(const char* op, const Tensor& image, const Tensor& logits) {
  STD_TORCH_CHECK(image.dim() >= 3 && image.size(1) == 1 && image.sizes().equals(logits.sizes()),
                  op, ": image and logits must be (B, 1, *spatial) of one shape");
}

inline void check_pair(const char* op, const char* name, const Tensor& pair, const Tensor& image) {
  STD_TORCH_CHECK(pair.dim() == image.dim() && pair.size(1) == 2 && pair.size(0) == image.size(0) &&
                      voxels(pair) == voxels(image),
                  op, ": ", name, " must be (B, 2, *spatial), spatial as the image");
}

// What forward kept, rows × kSums, and the gradient that arrives at its loss.
inline void check_saved(const char* op, const Tensor& grad, const Tensor& sums, int64_t rows,
                        int64_t numbers) {
  STD_TORCH_CHECK(grad.numel() == rows && is_double(sums) && sums.is_contiguous() &&
                      sums.numel() == rows * numbers,
                  op, ": grad and sums must have forward's shapes");
}

inline ct_window::Function check_ct_window(const Tensor& stored, const Tensor& slope,
                                           const Tensor& intercept, const Tensor& windows,
                                           const std::vector<int64_t>& size,
                                           const std::string& function, ScalarType dtype) {
  STD_TORCH_CHECK(stored.dim() == 3, "ct_window: stored must be (B, H, W)");
  STD_TORCH_CHECK(slope.dim() == 1 && slope.size(0) == stored.size(0) && intercept.dim() == 1 &&
                      intercept.size(0) == stored.size(0),
                  "ct_window: slope and intercept must be (B,)");
  STD_TORCH_CHECK(windows.dim() == 2 && windows.size(1) == 2,
                  "ct_window: windows must be (K, 2), level and width");
  STD_TORCH_CHECK(
      size.size() == 2 && size[0] > 0 && size[1] > 0 && stored.size(1) > 0 && stored.size(2) > 0,
      "ct_window: size must be two positive integers, and images not empty");
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half ||
                      dtype == ScalarType::BFloat16 || dtype == ScalarType::Double,
                  "ct_window: dtype must be a floating one");
  if (function == "linear") return ct_window::Function::kLinear;
  if (function == "linear_exact") return ct_window::Function::kLinearExact;
  STD_TORCH_CHECK(function == "sigmoid",
                  "ct_window: function must be 'linear', 'linear_exact' or 'sigmoid', not '",
                  function, "'");
  return ct_window::Function::kSigmoid;
}

// float32 cannot tell all integers of these two apart, and padding is compared for equality.
inline bool needs_double(const Tensor& stored) {
  const ScalarType dtype = stored.scalar_type();
  return dtype == ScalarType::Double || dtype == ScalarType::Int || dtype == ScalarType::Long;
}

}  // namespace ichfast
