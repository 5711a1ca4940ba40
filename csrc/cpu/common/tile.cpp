#include "cpu/common/tile.h"

#include "common/elements.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

#define ICHFAST_WIDEN(name, T, expression)                                     \
  ICHFAST_SIMD void name(const T* in, int64_t stride, int64_t n, float* out) { \
    if (stride == 1) {                                                         \
      for (int64_t i = 0; i < n; ++i) {                                        \
        const T x = in[i];                                                     \
        out[i] = expression;                                                   \
      }                                                                        \
    } else {                                                                   \
      for (int64_t i = 0; i < n; ++i) {                                        \
        const T x = in[i * stride];                                            \
        out[i] = expression;                                                   \
      }                                                                        \
    }                                                                          \
  }
ICHFAST_WIDEN(from_bool, uint8_t, float(x != 0))
ICHFAST_WIDEN(from_uint8, uint8_t, float(x))
ICHFAST_WIDEN(from_int16, int16_t, float(x))
ICHFAST_WIDEN(from_uint16, uint16_t, float(x))
ICHFAST_WIDEN(from_bfloat16, uint16_t, bfloat16_to_float(x))
ICHFAST_WIDEN(from_half, uint16_t, half_to_float(x))
ICHFAST_WIDEN(from_float, float, x)
#undef ICHFAST_WIDEN

template <class T>
void gather(const T* in, int64_t stride, int64_t n, auto* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = in[i * stride];
}

template <class T>
void scatter(const auto* in, int64_t stride, int64_t n, T* out, auto convert) {
  for (int64_t i = 0; i < n; ++i) out[i * stride] = convert(in[i]);
}

template <class T>
const T* at(const void* data, int64_t element) {
  return static_cast<const T*>(data) + element;
}

void widen(ScalarType dtype, const void* data, int64_t element, int64_t stride, int64_t n,
           float* out) {
  switch (dtype) {
    case ScalarType::Bool:
      return from_bool(at<uint8_t>(data, element), stride, n, out);
    case ScalarType::Byte:
      return from_uint8(at<uint8_t>(data, element), stride, n, out);
    case ScalarType::Short:
      return from_int16(at<int16_t>(data, element), stride, n, out);
    case ScalarType::UInt16:
      return from_uint16(at<uint16_t>(data, element), stride, n, out);
    case ScalarType::BFloat16:
      return from_bfloat16(at<uint16_t>(data, element), stride, n, out);
    case ScalarType::Half:
      return from_half(at<uint16_t>(data, element), stride, n, out);
    case ScalarType::Float:
      return from_float(at<float>(data, element), stride, n, out);
    case ScalarType::Char:
      return gather(at<int8_t>(data, element), stride, n, out);
    case ScalarType::Int:
      return gather(at<int32_t>(data, element), stride, n, out);
    case ScalarType::Long:
      return gather(at<int64_t>(data, element), stride, n, out);
    case ScalarType::Double:
      return gather(at<double>(data, element), stride, n, out);
    default:
      STD_TORCH_CHECK(false, "ichfast: unsupported dtype");
  }
}

}  // namespace

template <>
const float* load<float>(ScalarType dtype, const void* data, int64_t element, int64_t stride,
                         int64_t n, float* buffer) {
  if (dtype == ScalarType::Float && stride == 1) return at<float>(data, element);
  widen(dtype, data, element, stride, n, buffer);
  return buffer;
}

template <>
const double* load<double>(ScalarType dtype, const void* data, int64_t element, int64_t stride,
                           int64_t n, double* buffer) {
  switch (dtype) {
    case ScalarType::Double:
      if (stride == 1) return at<double>(data, element);
      gather(at<double>(data, element), stride, n, buffer);
      break;
    case ScalarType::Int:
      gather(at<int32_t>(data, element), stride, n, buffer);
      break;
    case ScalarType::Long:
      gather(at<int64_t>(data, element), stride, n, buffer);
      break;
    default: {  // everything else fits a float exactly
      float narrow[kTile];
      for (int64_t i = 0; i < n; i += kTile) {
        const int64_t m = n - i < kTile ? n - i : kTile;
        widen(dtype, data, element + i * stride, stride, m, narrow);
        for (int64_t j = 0; j < m; ++j) buffer[i + j] = narrow[j];
      }
    }
  }
  return buffer;
}

namespace {

#define ICHFAST_NARROW(name, convert)                                                 \
  ICHFAST_SIMD void name(const float* in, int64_t stride, int64_t n, uint16_t* out) { \
    if (stride == 1) {                                                                \
      for (int64_t i = 0; i < n; ++i) out[i] = convert(in[i]);                        \
    } else {                                                                          \
      scatter(in, stride, n, out, convert);                                           \
    }                                                                                 \
  }
ICHFAST_NARROW(to_bfloat16, float_to_bfloat16)
ICHFAST_NARROW(to_half, float_to_half)
#undef ICHFAST_NARROW

}  // namespace

template <class A>
void store(ScalarType dtype, void* data, int64_t element, int64_t stride, int64_t n,
           const A* values) {
  const auto same = [](A x) { return x; };
  switch (dtype) {
    case ScalarType::Float:
      return scatter(values, stride, n, static_cast<float*>(data) + element, same);
    case ScalarType::Double:
      return scatter(values, stride, n, static_cast<double*>(data) + element, same);
    case ScalarType::BFloat16:
    case ScalarType::Half: {
      const auto convert = dtype == ScalarType::Half ? to_half : to_bfloat16;
      uint16_t* out = static_cast<uint16_t*>(data) + element;
      if constexpr (sizeof(A) == sizeof(float)) {
        return convert(values, stride, n, out);
      } else {
        float narrow[kTile];
        for (int64_t i = 0; i < n; i += kTile) {
          const int64_t m = n - i < kTile ? n - i : kTile;
          for (int64_t j = 0; j < m; ++j) narrow[j] = float(values[i + j]);
          convert(narrow, stride, m, out + i * stride);
        }
        return;
      }
    }
    default:
      STD_TORCH_CHECK(false, "ichfast: unsupported dtype");
  }
}

template void store(ScalarType, void*, int64_t, int64_t, int64_t, const float*);
template void store(ScalarType, void*, int64_t, int64_t, int64_t, const double*);

double number_at(const Tensor& tensor, int64_t element) {
  double buffer;
  return *load(tensor.scalar_type(), tensor.const_data_ptr(), element, 1, 1, &buffer);
}

double number_at(const std::optional<Tensor>& tensor, int64_t b, double otherwise) {
  return tensor ? number_at(*tensor, b * tensor->stride(0)) : otherwise;
}

std::vector<double> read_numbers(const Tensor& tensor) {
  // Where it lies, without a copy: a gradient is often one number, expanded.
  std::vector<double> numbers(tensor.numel());
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    int64_t element = 0, rest = i;
    for (int64_t d = tensor.dim() - 1; d >= 0; --d) {
      element += rest % tensor.size(d) * tensor.stride(d);
      rest /= tensor.size(d);
    }
    numbers[i] = number_at(tensor, element);
  }
  return numbers;
}

}  // namespace ichfast
