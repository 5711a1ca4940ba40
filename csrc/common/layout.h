// How the voxels of a (B, C, *spatial) tensor lie in memory.
#pragma once

#include <optional>

#include "common/strides.h"
#include "common/torch.h"

namespace ichfast {

// The strides of a tensor whose spatial dimensions fold into one: contiguous, channels-last, a
// slice of channels, a tensor expanded over images. Nothing where they do not fold (say, a
// transposed image).
inline std::optional<Strides> fold(const Tensor& tensor) {
  int64_t voxel = 1, expected = -1;
  for (int64_t d = tensor.dim() - 1; d >= 2; --d) {
    if (tensor.size(d) < 2) continue;
    if (expected < 0) {
      voxel = expected = tensor.stride(d);
    } else if (tensor.stride(d) != expected) {
      return std::nullopt;
    }
    expected *= tensor.size(d);
  }
  return Strides{tensor.stride(0), tensor.stride(1), voxel};
}

// The tensor itself where it folds, else a contiguous copy.
inline Tensor foldable(const Tensor& tensor) {
  return fold(tensor) ? tensor : torch::stable::contiguous(tensor);
}

// Memory for a gradient of `tensor`, which folds; without elements where it is not wanted. Dense
// strides in the order of the tensor's own fold too, except those of overlapping windows, whose
// images lie between each other's rows.
inline Tensor empty_gradient(const Tensor& tensor, bool wanted = true) {
  if (!wanted) return torch::stable::new_empty(tensor, {0});
  Tensor result = torch::stable::empty_like(tensor);
  return fold(result) ? result : torch::stable::new_empty(tensor, tensor.sizes());
}

inline int64_t voxels(const Tensor& tensor) {
  int64_t n = 1;
  for (int64_t d = 2; d < tensor.dim(); ++d) n *= tensor.size(d);
  return n;
}

}  // namespace ichfast
