// Channels-last tensors: pixels, one behind the other, whose channels are neighbours.
#pragma once

#include <optional>

#include "common/torch.h"

namespace ichfast {

inline int64_t count_pixels(const Tensor& tensor) {
  return tensor.size(0) * tensor.size(2) * tensor.size(3);
}

// From one pixel of an (N, C, H, W) tensor to the next, in elements, where the distance is the same
// for all: channels-last, or a slice of channels of such a tensor. Nothing elsewhere.
inline std::optional<int64_t> find_pixel_stride(const Tensor& tensor) {
  const int64_t channels = tensor.size(1);
  if (channels > 1 && tensor.stride(1) != 1) return std::nullopt;
  std::optional<int64_t> pixel;
  int64_t expected = 0;
  for (const int64_t d : {3, 2, 0}) {
    if (tensor.size(d) == 1) continue;
    if (!pixel) {
      pixel = expected = tensor.stride(d);
    } else if (tensor.stride(d) != expected) {
      return std::nullopt;
    }
    expected *= tensor.size(d);
  }
  if (!pixel) return channels;                                       // there is one pixel
  if (*pixel < channels && tensor.numel() > 0) return std::nullopt;  // several in one place
  return pixel;
}

// The tensor itself where it lies so, else a copy.
inline Tensor as_pixels(const Tensor& tensor) {
  return find_pixel_stride(tensor)
             ? tensor
             : torch::stable::contiguous(tensor, torch::headeronly::MemoryFormat::ChannelsLast);
}

inline Tensor empty_pixels(const Tensor& like, int64_t channels, int64_t height, int64_t width) {
  return torch::stable::empty({like.size(0), channels, height, width}, like.scalar_type(),
                              std::nullopt, like.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::ChannelsLast);
}

}  // namespace ichfast
