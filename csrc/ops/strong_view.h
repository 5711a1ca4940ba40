// Strong views as an op: checks and result, once for all devices.
#pragma once

#include "math/strong_view.h"
#include "ops/common/checks.h"

namespace ichfast::strong_view {

struct Arguments {
  Tensor image;               // (B, 1, H, W); folds
  Tensor gamma, blur, noise;  // (B,)
  Tensor seed;                // (B,) int64
};

// What a device adds: it fills the (B, 1, H, W) result.
using Forward = void(const Arguments&, Tensor& result);

template <Forward* kForward>
Tensor forward_op(const Tensor& image, const Tensor& gamma, const Tensor& blur, const Tensor& noise,
                  const Tensor& seed) {
  STD_TORCH_CHECK(
      image.dim() == 4 && image.size(1) == 1 && image.size(2) * image.size(3) < int64_t(1) << 31,
      "strong_view: image must be (B, 1, H, W) with fewer than 2^31 pixels");
  const int64_t batch = image.size(0);
  for (const Tensor* numbers : {&gamma, &blur, &noise})
    STD_TORCH_CHECK(numbers->dim() == 1 && numbers->size(0) == batch,
                    "strong_view: gamma, blur and noise must be (B,)");
  STD_TORCH_CHECK(
      seed.dim() == 1 && seed.size(0) == batch && seed.scalar_type() == ScalarType::Long,
      "strong_view: seed must be (B,) int64");
  check_one_device(
      "strong_view",
      {{"image", image}, {"gamma", gamma}, {"blur", blur}, {"noise", noise}, {"seed", seed}});
  check_floating("strong_view",
                 {{"image", image}, {"gamma", gamma}, {"blur", blur}, {"noise", noise}});
  Tensor result = allocate(image, image.sizes());
  kForward({foldable(image), gamma, blur, noise, seed}, result);
  return result;
}

}  // namespace ichfast::strong_view
