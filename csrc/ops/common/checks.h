// What several ops check, on every device; what is an op's own stands in ops/<op>.h. The Python
// functions say the same in more words; this guards calls of the raw ops.
#pragma once

#include "common/layout.h"

namespace ichfast {

inline void check_same_shape(const char* op, const Tensor& prediction, const Tensor& target) {
  STD_TORCH_CHECK(prediction.dim() >= 3 && prediction.sizes().equals(target.sizes()), op,
                  ": prediction and target must be (B, C, *spatial) of one shape");
}

// What forward kept, rows × kSums, and the gradient that arrives at its loss.
inline void check_saved(const char* op, const Tensor& grad, const Tensor& sums, int64_t rows,
                        int64_t numbers) {
  STD_TORCH_CHECK(grad.numel() == rows && is_double(sums) && sums.is_contiguous() &&
                      sums.numel() == rows * numbers,
                  op, ": grad and sums must have forward's shapes");
}

}  // namespace ichfast
