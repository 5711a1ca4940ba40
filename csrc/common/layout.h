// How the voxels of a (B, C, *spatial) tensor lie in memory.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

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

// New memory on the device of `beside`, dense, and of its dtype unless another is given. torch's
// own new_empty of this layer finds its operator by name at every call, which takes a microsecond.
inline Tensor allocate(const Tensor& beside, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                       std::optional<ScalarType> dtype = std::nullopt) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0; stride *= std::max<int64_t>(sizes[d], 1))
    strides[d] = stride;
  int32_t kind, index, element;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(beside.get(), &kind));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(beside.get(), &index));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(beside.get(), &element));
  if (dtype) element = torch::stable::detail::to<int32_t>(torch::stable::detail::from(*dtype));
  AtenTensorHandle memory;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(),
                                                  strides.data(), element, kind, index, &memory));
  return Tensor(memory);
}

// Memory for a gradient of `tensor`, which folds; without elements where it is not wanted. Dense
// strides in the order of the tensor's own fold too, except those of overlapping windows, whose
// images lie between each other's rows.
inline Tensor empty_gradient(const Tensor& tensor, bool wanted = true) {
  if (!wanted) return allocate(tensor, {0});
  if (tensor.is_contiguous()) return allocate(tensor, tensor.sizes());
  Tensor result = torch::stable::empty_like(tensor);
  return fold(result) ? result : allocate(tensor, tensor.sizes());
}

inline int64_t voxels(const Tensor& tensor) {
  int64_t n = 1;
  for (int64_t d = 2; d < tensor.dim(); ++d) n *= tensor.size(d);
  return n;
}

}  // namespace ichfast
