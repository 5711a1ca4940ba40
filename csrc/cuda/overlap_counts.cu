// TP, FP and FN on the GPU. See kernels/overlap_counts.cuh.
#include "ops/overlap_counts.h"

#include "cuda/common/dispatch.h"
#include "kernels/overlap_counts.cuh"

namespace ichfast {
namespace {

using namespace overlap_counts;

void forward_cuda(const Arguments& arguments, Tensor& counts) {
  const Tensor& prediction = arguments.prediction;
  const Tensor& target = arguments.target;
  const CudaLaunch launch(prediction);
  const int64_t images = prediction.size(0), channels = prediction.size(1);
  const int64_t n = voxels(prediction);
  dispatch_overlap(prediction, target, [&]<class A, class P, class T>() {
    Tensor partial =
        allocate(prediction, {slots<P, T, CudaLaunch>(images * channels, n)}, ScalarType::Long);
    forward<A>(launch, input<P>(prediction), input<T>(target), arguments.threshold, images,
               channels, n, partial.mutable_data_ptr<int64_t>(),
               counts.mutable_data_ptr<int64_t>());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("overlap_counts", TORCH_BOX(&forward_op<forward_cuda>));
}

}  // namespace ichfast
