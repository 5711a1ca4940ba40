// The shapes that each op takes and gives, for the CPU and the CUDA kernels alike. The Python
// functions say the same in more words; this guards calls of the raw ops.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

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

inline ct_window::Function parse_function(const char* op, const std::string& function) {
  if (function == "linear") return ct_window::Function::kLinear;
  if (function == "linear_exact") return ct_window::Function::kLinearExact;
  STD_TORCH_CHECK(function == "sigmoid", op,
                  ": function must be 'linear', 'linear_exact' or 'sigmoid', not '", function, "'");
  return ct_window::Function::kSigmoid;
}

inline void check_result_dtype(const char* op, ScalarType dtype) {
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half ||
                      dtype == ScalarType::BFloat16 || dtype == ScalarType::Double,
                  op, ": dtype must be a floating one");
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
  check_result_dtype("ct_window", dtype);
  return parse_function("ct_window", function);
}

inline void check_pool_batch(const Tensor& pool, const std::optional<Tensor>& masks,
                             const Tensor& indices, const Tensor& theta, const Tensor& slope,
                             const Tensor& intercept, const Tensor& windows,
                             const std::vector<int64_t>& size) {
  STD_TORCH_CHECK(pool.dim() == 3 && pool.scalar_type() == ScalarType::Short &&
                      pool.is_contiguous() && pool.size(1) >= 2 && pool.size(2) >= 2 &&
                      pool.size(1) * pool.size(2) < int64_t(1) << 31,
                  "pool_batch: pool must be (N, H, W) int16, contiguous, H and W at least 2");
  STD_TORCH_CHECK(!masks || (masks->sizes().equals(pool.sizes()) && masks->is_contiguous() &&
                             (masks->scalar_type() == ScalarType::Byte ||
                              masks->scalar_type() == ScalarType::Bool)),
                  "pool_batch: masks must be uint8 or bool, contiguous, of the pool's shape");
  const int64_t images = indices.numel();
  STD_TORCH_CHECK(indices.dim() == 1 && indices.scalar_type() == ScalarType::Long,
                  "pool_batch: indices must be (B,) int64");
  STD_TORCH_CHECK(
      theta.dim() == 3 && theta.size(0) == images && theta.size(1) == 2 && theta.size(2) == 3,
      "pool_batch: theta must be (B, 2, 3)");
  STD_TORCH_CHECK(slope.dim() == 1 && slope.size(0) == images && intercept.dim() == 1 &&
                      intercept.size(0) == images,
                  "pool_batch: slope and intercept must be (B,)");
  STD_TORCH_CHECK(windows.dim() == 3 && windows.size(0) == images && windows.size(2) == 2,
                  "pool_batch: windows must be (B, K, 2), level and width");
  STD_TORCH_CHECK(size.size() == 2 && size[0] > 0 && size[1] > 0 && size[1] < int64_t(1) << 31,
                  "pool_batch: size must be two positive integers, the width below 2^31");
}

// Images and masks of a batch, not filled yet; the masks empty where none are asked for.
inline std::tuple<Tensor, Tensor> new_pool_batch(const Tensor& pool, bool masks, int64_t batch,
                                                 int64_t windows, const std::vector<int64_t>& size,
                                                 ScalarType dtype) {
  const std::vector<int64_t> none{0}, all{batch, 1, size[0], size[1]};
  return {torch::stable::new_empty(pool, {batch, windows, size[0], size[1]}, dtype),
          torch::stable::new_empty(pool, masks ? all : none, ScalarType::Byte)};
}

// float32 cannot tell all integers of these two apart, and padding is compared for equality.
inline bool needs_double(const Tensor& stored) {
  const ScalarType dtype = stored.scalar_type();
  return dtype == ScalarType::Double || dtype == ScalarType::Int || dtype == ScalarType::Long;
}

}  // namespace ichfast
