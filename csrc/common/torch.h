// The stable part of libtorch: what is built on it runs on every torch from the target version on.
#pragma once

// 2.11.0.
#if defined(TORCH_FEATURE_VERSION)
#error "Include common/torch.h before any header of torch"
#endif
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace ichfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_double(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double;
}

}  // namespace ichfast
