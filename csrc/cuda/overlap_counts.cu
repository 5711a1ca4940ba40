// TP, FP and FN on the GPU. See kernels/overlap_counts.cuh.
#include "cuda/common/dispatch.h"
#include "kernels/overlap_counts.cuh"

namespace ichfast {
namespace {

using namespace overlap_counts;

Tensor overlap_counts_cuda(const Tensor& prediction_in, const Tensor& target_in, double threshold) {
  check_same_shape("overlap_counts", prediction_in, target_in);
  const CudaLaunch launch(prediction_in);
  const Tensor prediction = foldable(prediction_in), target = foldable(target_in);
  const int64_t images = prediction.size(0), channels = prediction.size(1);
  const int64_t n = voxels(prediction);
  Tensor result = torch::stable::new_empty(prediction, {images, channels, kNaN}, ScalarType::Long);
  dispatch_overlap(prediction, target, [&]<class A, class P, class T>() {
    Tensor partial = torch::stable::new_empty(
        prediction, {slots<P, T, CudaLaunch>(images * channels, n)}, ScalarType::Long);
    forward<A>(launch, input<P>(prediction), input<T>(target), threshold, images, channels, n,
               partial.mutable_data_ptr<int64_t>(), result.mutable_data_ptr<int64_t>());
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CUDA, m) {
  m.impl("overlap_counts", TORCH_BOX(&overlap_counts_cuda));
}

}  // namespace ichfast
