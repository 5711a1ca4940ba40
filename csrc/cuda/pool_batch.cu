// Training batches from a pool on the GPU. See kernels/pool_batch.cuh.
#include "cuda/common/cuda.h"
#include "kernels/pool_batch.cuh"

namespace ichfast {
namespace {

using namespace pool_batch;

// Indices and numbers are read where they lie, by the kernel: to look at them here would stall the
// stream. What the CPU refuses gives NaN.
std::tuple<Tensor, Tensor> pool_batch_cuda(const Tensor& pool, std::optional<Tensor> masks,
                                           const Tensor& indices, const Tensor& theta,
                                           const Tensor& slope, const Tensor& intercept,
                                           const Tensor& windows, std::vector<int64_t> size,
                                           const std::string& function_name, ScalarType dtype) {
  check_pool_batch(pool, masks, indices, theta, slope, intercept, windows, size);
  check_result_dtype("pool_batch", dtype);
  const ct_window::Function function = parse_function("pool_batch", function_name);
  const CudaLaunch launch(pool);
  const Shape shape{pool.size(0),    indices.size(0), pool.size(1), pool.size(2),
                    windows.size(1), size[0],         size[1]};
  STD_TORCH_CHECK(shape.pool > 0 || shape.batch == 0, "pool_batch: the pool is empty");
  std::tuple<Tensor, Tensor> results =
      new_pool_batch(pool, masks.has_value(), shape.batch, shape.windows, size, dtype);
  Tensor& images = std::get<0>(results);
  Tensor& masks_out = std::get<1>(results);
  forward(launch, pool.const_data_ptr<int16_t>(),
          masks ? static_cast<const uint8_t*>(masks->const_data_ptr()) : nullptr,
          indices.const_data_ptr<int64_t>(), indices.stride(0),
          input<Number>(theta, {theta.stride(0), theta.stride(1), theta.stride(2)}),
          input<Number>(slope, {slope.stride(0), 0, 0}),
          input<Number>(intercept, {intercept.stride(0), 0, 0}),
          input<Number>(windows, {windows.stride(0), windows.stride(1), windows.stride(2)}), shape,
          function, output<Floating>(images, {}),
          masks ? static_cast<uint8_t*>(masks_out.mutable_data_ptr()) : nullptr);
  return results;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("pool_batch", TORCH_BOX(&pool_batch_cuda));
}

}  // namespace ichfast
