// Training batches from a pool on the GPU. See kernels/pool_batch.cuh.
#include "ops/pool_batch.h"

#include "cuda/common/cuda.h"
#include "kernels/pool_batch.cuh"

namespace ichfast {
namespace {

using namespace pool_batch;

// Indices and numbers are read where they lie, by the kernel: to look at them here would stall the
// stream. What the CPU refuses gives NaN.
void forward_cuda(const Arguments& arguments, Tensor& images, uint8_t* masks) {
  const auto& [pool, pool_masks, slices, height, width, indices, theta, slope, intercept, windows,
               function] = arguments;
  const CudaLaunch launch(images);
  const Shape shape{slices,         images.size(0), height,        width,
                    images.size(1), images.size(2), images.size(3)};
  STD_TORCH_CHECK(shape.pool > 0 || shape.batch == 0, "pool_batch: the pool is empty");
  forward(launch, pool, pool_masks, indices.const_data_ptr<int64_t>(), indices.stride(0),
          input<Number>(theta, {theta.stride(0), theta.stride(1), theta.stride(2)}),
          numbers<Number>(slope), numbers<Number>(intercept),
          input<Number>(windows, {windows.stride(0), windows.stride(1), windows.stride(2)}), shape,
          function, output<Floating>(images, {}), masks);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("pool_batch", TORCH_BOX(&forward_op<forward_cuda>));
}

}  // namespace ichfast
