// What several ops check, on every device; what is an op's own stands in ops/<op>.h. The Python
// functions say the same in more words; this guards calls of the raw ops.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>

#include "common/layout.h"

namespace ichfast {

// An argument as messages call it. One that is missing passes every check.
struct Named {
  const char* name;
  const Tensor* tensor;

  Named(const char* called, const Tensor& given) : name(called), tensor(&given) {}
  Named(const char* called, const std::optional<Tensor>& given)
      : name(called), tensor(given ? &*given : nullptr) {}
};

inline std::string device_name(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

// A kernel that got an address of another device would end the process, or read what lies there.
inline void check_one_device(const char* op, std::initializer_list<Named> tensors) {
  const Named& first = *tensors.begin();
  const bool cpu = first.tensor->is_cpu();
  const auto index = first.tensor->get_device_index();
  for (const Named& other : tensors)
    STD_TORCH_CHECK(!other.tensor || (other.tensor->is_cpu() == cpu &&
                                      other.tensor->get_device_index() == index),
                    op, ": ", other.name, " is on ", device_name(*other.tensor), " but ",
                    first.name, " is on ", device_name(*first.tensor), "; move both to one device");
}

inline bool is_floating(const Tensor& tensor) {
  const ScalarType dtype = tensor.scalar_type();
  return dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16 ||
         dtype == ScalarType::Double;
}

inline void check_floating(const char* op, std::initializer_list<Named> tensors) {
  for (const Named& each : tensors)
    STD_TORCH_CHECK(!each.tensor || is_floating(*each.tensor), op, ": ", each.name,
                    " must be float64, float32, float16 or bfloat16");
}

// Targets and masks.
inline void check_mask(const char* op, std::initializer_list<Named> tensors) {
  for (const Named& each : tensors)
    STD_TORCH_CHECK(!each.tensor || is_floating(*each.tensor) ||
                        each.tensor->scalar_type() == ScalarType::Bool ||
                        each.tensor->scalar_type() == ScalarType::Byte,
                    op, ": ", each.name, " must be bool, uint8 or floating");
}

inline void check_same_shape(const char* op, const Tensor& prediction, const Tensor& target) {
  STD_TORCH_CHECK(prediction.dim() >= 3 && prediction.sizes().equals(target.sizes()), op,
                  ": prediction and target must be (B, C, *spatial) of one shape");
}

// What kernels can read as a number: not complex, quantised or of eight bits with an exponent.
inline void check_numbers(const char* op, std::initializer_list<Named> tensors) {
  for (const Named& each : tensors) {
    if (!each.tensor || is_floating(*each.tensor)) continue;
    switch (each.tensor->scalar_type()) {
      case ScalarType::Bool:
      case ScalarType::Byte:
      case ScalarType::Char:
      case ScalarType::UInt16:
      case ScalarType::Short:
      case ScalarType::Int:
      case ScalarType::Long:
        break;
      default:
        STD_TORCH_CHECK(false, op, ": ", each.name, " must be an integer or floating tensor");
    }
  }
}

// What forward kept, rows × kSums, and the gradient that arrives at its loss; both where `tensor`,
// an argument of both passes, is.
inline void check_saved(const char* op, const Tensor& grad, const Tensor& sums, int64_t rows,
                        int64_t numbers, Named tensor) {
  check_one_device(op, {tensor, {"grad", grad}, {"sums", sums}});
  check_floating(op, {{"grad", grad}});
  STD_TORCH_CHECK(grad.numel() == rows && is_double(sums) && sums.is_contiguous() &&
                      sums.numel() == rows * numbers,
                  op, ": grad and sums must have forward's shapes");
}

}  // namespace ichfast
