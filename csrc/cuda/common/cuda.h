// The seam between torch and the kernels: device, stream, launch, and tensors as views.
#pragma once

#include "common/torch.h"  // first: it says for which torch the headers below are read

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include <string>

#include "common/layout.h"
#include "kernels/common/rows.h"

namespace ichfast {

#if !defined(ICHFAST_CUDA_ARCHITECTURES)
#error "The build must name the architectures it compiles for"
#endif

// Launches kernels on the tensor's device, whatever the current one, and on its current stream.
class CudaLaunch {
 public:
  // Of a block: enough for four of them on a multiprocessor to hide what each waits for.
  static constexpr int kThreads = 256;
  // From so many on, blocks get larger rather than more: eight times what an H200 runs at once is
  // enough for an even end.
  static constexpr int64_t kPlentyOfBlocks = 8192;

  explicit CudaLaunch(const Tensor& tensor) : device_(tensor.get_device_index()), guard_(device_) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), int64_t blocks,
                  const Arguments&... arguments) const {
    if (blocks == 0) return;
    STD_TORCH_CHECK(blocks < int64_t(1) << 31,
                    "ichfast: a tensor has too many voxels for one "
                    "launch (",
                    blocks, " blocks, 2^31 at most); split the batch");
    kernel<<<unsigned(blocks), kThreads, 0, stream_>>>(arguments...);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) fail(error);
  }

 private:
  [[noreturn]] void fail(cudaError_t error) const {
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion ||
        error == cudaErrorInvalidDeviceFunction) {
      int major = 0, minor = 0;
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_);
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device_);
      const std::string capability = std::to_string(major) + "." + std::to_string(minor);
      STD_TORCH_CHECK(false,
                      "ichfast: built for GPUs of compute capability " ICHFAST_CUDA_ARCHITECTURES
                      ", and this one has ",
                      capability, "; build again with TORCH_CUDA_ARCH_LIST=", capability);
    }
    // The runtime hands over what went wrong so far, which may be an earlier kernel's doing.
    STD_TORCH_CHECK(false, "ichfast: a CUDA kernel, this one or one launched before it, failed: ",
                    cudaGetErrorString(error));
  }

  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

// ---- dtypes

template <class T>
inline constexpr ScalarType kScalarType = ScalarType::Undefined;
template <>
inline constexpr ScalarType kScalarType<Bool> = ScalarType::Bool;
template <>
inline constexpr ScalarType kScalarType<uint8_t> = ScalarType::Byte;
template <>
inline constexpr ScalarType kScalarType<int8_t> = ScalarType::Char;
template <>
inline constexpr ScalarType kScalarType<uint16_t> = ScalarType::UInt16;
template <>
inline constexpr ScalarType kScalarType<int16_t> = ScalarType::Short;
template <>
inline constexpr ScalarType kScalarType<int32_t> = ScalarType::Int;
template <>
inline constexpr ScalarType kScalarType<int64_t> = ScalarType::Long;
template <>
inline constexpr ScalarType kScalarType<Half> = ScalarType::Half;
template <>
inline constexpr ScalarType kScalarType<BFloat16> = ScalarType::BFloat16;
template <>
inline constexpr ScalarType kScalarType<float> = ScalarType::Float;
template <>
inline constexpr ScalarType kScalarType<double> = ScalarType::Double;

// The position of a dtype in a OneOf.
template <class... T>
int position(OneOf<T...>, ScalarType dtype) {
  int result = -1, at = 0;
  ((result = kScalarType<T> == dtype ? at : result, ++at), ...);
  STD_TORCH_CHECK(result >= 0, "ichfast: unsupported dtype");
  return result;
}

// ---- views

template <class T>
Input<T> input(const Tensor& tensor, Strides strides) {
  if constexpr (requires(Input<T> view) { view.which; }) {
    return {tensor.const_data_ptr(), strides, position(T{}, tensor.scalar_type())};
  } else {
    return {static_cast<const T*>(tensor.const_data_ptr()), strides};
  }
}

template <class T>
Output<T> output(Tensor& tensor, Strides strides) {
  if constexpr (requires(Output<T> view) { view.which; }) {
    return {tensor.mutable_data_ptr(), strides, position(T{}, tensor.scalar_type())};
  } else {
    return {static_cast<T*>(tensor.mutable_data_ptr()), strides};
  }
}

// Of a (B,) tensor; without data where there is none.
template <class T>
Input<T> numbers(const std::optional<Tensor>& tensor) {
  return tensor ? input<T>(*tensor, {tensor->stride(0), 0, 0}) : Input<T>{};
}

// Of a (B, C, *spatial) tensor that folds.
template <class T>
Input<T> input(const Tensor& tensor) {
  return input<T>(tensor, *fold(tensor));
}

template <class T>
Output<T> output(Tensor& tensor) {
  return output<T>(tensor, *fold(tensor));
}

}  // namespace ichfast
