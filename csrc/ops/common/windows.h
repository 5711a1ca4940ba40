// What the ops that end in a window check.
#pragma once

#include <string>

#include "math/ct_window.h"
#include "ops/common/checks.h"

namespace ichfast {

inline ct_window::Function parse_function(const char* op, const std::string& function) {
  if (function == "linear") return ct_window::Function::kLinear;
  if (function == "linear_exact") return ct_window::Function::kLinearExact;
  STD_TORCH_CHECK(function == "sigmoid", op,
                  ": function must be 'linear', 'linear_exact' or 'sigmoid', not '", function, "'");
  return ct_window::Function::kSigmoid;
}

// Rescale to HU, one number an image; 1 and 0 where left out.
inline void check_rescale(const char* op, const std::optional<Tensor>& slope,
                          const std::optional<Tensor>& intercept, int64_t images) {
  for (const auto* numbers : {&slope, &intercept})
    STD_TORCH_CHECK(!*numbers || ((*numbers)->dim() == 1 && (*numbers)->size(0) == images), op,
                    ": slope and intercept must be (B,)");
}

inline void check_result_dtype(const char* op, ScalarType dtype) {
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half ||
                      dtype == ScalarType::BFloat16 || dtype == ScalarType::Double,
                  op, ": dtype must be a floating one");
}

}  // namespace ichfast
