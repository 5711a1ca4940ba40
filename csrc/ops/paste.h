// Pasting as an op: checks and results, once for all devices.
#pragma once

#include <optional>
#include <tuple>

#include "math/paste.h"
#include "ops/common/checks.h"

namespace ichfast::paste {

// All (B, 1, H, W), the pixels of an image one behind the other.
struct Arguments {
  Tensor image, source, region;
  std::optional<Tensor> target, source_target;
  Tensor feather;  // (B,)
  double low, high;
};

// What a device adds: it fills the image and, where there is one, the target, both contiguous.
using Forward = void(const Arguments&, Tensor& image, Tensor& target);

// The tensor itself where the pixels of an image lie one behind the other, else a copy.
inline Tensor in_rows(const Tensor& tensor) {
  const std::optional<Strides> strides = fold(tensor);
  return strides && strides->voxel == 1 ? tensor : torch::stable::contiguous(tensor);
}

template <Forward* kForward>
std::tuple<Tensor, Tensor> forward_op(const Tensor& image, std::optional<Tensor> target,
                                      const Tensor& source, std::optional<Tensor> source_target,
                                      const Tensor& region, const Tensor& feather, double low,
                                      double high) {
  STD_TORCH_CHECK(image.dim() == 4 && image.size(1) == 1 && image.sizes().equals(source.sizes()) &&
                      image.sizes().equals(region.sizes()),
                  "paste: image, source and region must be (B, 1, H, W) of one shape");
  STD_TORCH_CHECK(image.scalar_type() == source.scalar_type(),
                  "paste: image and source must have one dtype");
  STD_TORCH_CHECK(
      region.scalar_type() == ScalarType::Byte || region.scalar_type() == ScalarType::Bool,
      "paste: region must be uint8 or bool");
  STD_TORCH_CHECK(bool(target) == bool(source_target) &&
                      (!target || (image.sizes().equals(target->sizes()) &&
                                   image.sizes().equals(source_target->sizes()) &&
                                   target->scalar_type() == source_target->scalar_type())),
                  "paste: target and source_target must have the image's shape and one dtype, or "
                  "both be missing");
  STD_TORCH_CHECK(feather.dim() == 1 && feather.size(0) == image.size(0),
                  "paste: feather must be (B,)");
  check_one_device("paste", {{"image", image},
                             {"target", target},
                             {"source", source},
                             {"source_target", source_target},
                             {"region", region},
                             {"feather", feather}});
  check_floating("paste", {{"image", image}, {"feather", feather}});
  check_mask("paste", {{"target", target}});
  const auto optional_rows = [](const std::optional<Tensor>& tensor) {
    return tensor ? std::optional(in_rows(*tensor)) : std::nullopt;
  };
  const Arguments arguments{in_rows(image),
                            in_rows(source),
                            in_rows(region),
                            optional_rows(target),
                            optional_rows(source_target),
                            feather,
                            low,
                            high};
  Tensor image_out = allocate(image, image.sizes());
  Tensor target_out = target ? allocate(*target, target->sizes()) : allocate(image, {0});
  kForward(arguments, image_out, target_out);
  return {image_out, target_out};
}

}  // namespace ichfast::paste
