// What the ops that mask an image by a network's logits check.
#pragma once

#include "ops/common/checks.h"

namespace ichfast {

inline void check_image_and_logits(const char* op, const Tensor& image, const Tensor& logits) {
  STD_TORCH_CHECK(image.dim() >= 3 && image.size(1) == 1 && image.sizes().equals(logits.sizes()),
                  op, ": image and logits must be (B, 1, *spatial) of one shape");
  check_one_device(op, {{"image", image}, {"logits", logits}});
  check_floating(op, {{"image", image}, {"logits", logits}});
}

inline void check_pair(const char* op, const char* name, const Tensor& pair, const Tensor& image) {
  STD_TORCH_CHECK(pair.dim() == image.dim() && pair.size(1) == 2 && pair.size(0) == image.size(0) &&
                      voxels(pair) == voxels(image),
                  op, ": ", name, " must be (B, 2, *spatial), spatial as the image");
  check_one_device(op, {{"image", image}, {name, pair}});
  check_floating(op, {{name, pair}});
}

}  // namespace ichfast
