// Training batches from a pool as an op: checks and results, once for all devices.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "math/pool_batch.h"
#include "ops/common/windows.h"

namespace ichfast::pool_batch {

// Positions are float32, which beyond this has not every integer: a tap would lie outside.
inline constexpr int64_t kMostSide = int64_t(1) << 24;

struct Arguments {
  const int16_t* pool;   // (N, H, W), contiguous
  const uint8_t* masks;  // the same, or null
  int64_t slices, height, width;
  Tensor indices;                          // (B,) int64
  Tensor theta;                            // (B, 2, 3)
  std::optional<Tensor> slope, intercept;  // (B,)
  Tensor windows;                          // (B, K, 2): level and width
  ct_window::Function function;
};

// What a device adds: it fills the (B, K, H′, W′) images and, unless null, (B, 1, H′, W′) masks.
using Forward = void(const Arguments&, Tensor& images, uint8_t* masks);

template <Forward* kForward>
std::tuple<Tensor, Tensor> forward_op(const Tensor& pool, std::optional<Tensor> masks,
                                      const Tensor& indices, const Tensor& theta,
                                      std::optional<Tensor> slope, std::optional<Tensor> intercept,
                                      const Tensor& windows, std::vector<int64_t> size,
                                      const std::string& function, ScalarType dtype) {
  STD_TORCH_CHECK(pool.dim() == 3 && pool.scalar_type() == ScalarType::Short &&
                      pool.is_contiguous() && pool.size(1) >= 2 && pool.size(2) >= 2 &&
                      pool.size(1) <= kMostSide && pool.size(2) <= kMostSide &&
                      pool.size(1) * pool.size(2) < int64_t(1) << 31,
                  "pool_batch: pool must be (N, H, W) int16, contiguous, H and W from 2 to 2^24");
  STD_TORCH_CHECK(!masks || (masks->sizes().equals(pool.sizes()) && masks->is_contiguous() &&
                             (masks->scalar_type() == ScalarType::Byte ||
                              masks->scalar_type() == ScalarType::Bool)),
                  "pool_batch: masks must be uint8 or bool, contiguous, of the pool's shape");
  const int64_t batch = indices.numel();
  STD_TORCH_CHECK(indices.dim() == 1 && indices.scalar_type() == ScalarType::Long,
                  "pool_batch: indices must be (B,) int64");
  STD_TORCH_CHECK(
      theta.dim() == 3 && theta.size(0) == batch && theta.size(1) == 2 && theta.size(2) == 3,
      "pool_batch: theta must be (B, 2, 3)");
  check_rescale("pool_batch", slope, intercept, batch);
  STD_TORCH_CHECK(windows.dim() == 3 && windows.size(0) == batch && windows.size(2) == 2,
                  "pool_batch: windows must be (B, K, 2), level and width");
  STD_TORCH_CHECK(size.size() == 2 && size[0] > 0 && size[1] > 0 && size[0] <= kMostSide &&
                      size[1] <= kMostSide,
                  "pool_batch: size must be two positive integers of at most 2^24");
  check_one_device("pool_batch", {{"pool", pool},
                                  {"masks", masks},
                                  {"indices", indices},
                                  {"theta", theta},
                                  {"slope", slope},
                                  {"intercept", intercept},
                                  {"windows", windows}});
  check_numbers(
      "pool_batch",
      {{"theta", theta}, {"slope", slope}, {"intercept", intercept}, {"windows", windows}});
  check_result_dtype("pool_batch", dtype);
  const Arguments arguments{pool.const_data_ptr<int16_t>(),
                            masks ? static_cast<const uint8_t*>(masks->const_data_ptr()) : nullptr,
                            pool.size(0),
                            pool.size(1),
                            pool.size(2),
                            indices,
                            theta,
                            slope,
                            intercept,
                            windows,
                            parse_function("pool_batch", function)};
  const std::vector<int64_t> none{0}, all{batch, 1, size[0], size[1]};
  Tensor images = allocate(pool, {batch, windows.size(1), size[0], size[1]}, dtype);
  Tensor masks_out = allocate(pool, masks ? all : none, ScalarType::Byte);
  kForward(arguments, images,
           masks ? static_cast<uint8_t*>(masks_out.mutable_data_ptr()) : nullptr);
  return {images, masks_out};
}

}  // namespace ichfast::pool_batch
