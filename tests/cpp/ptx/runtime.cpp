// Stands in for the CUDA runtime and for torch's parts of CUDA, so that csrc/cuda/*.cu run as nvcc
// compiles them: a launch goes to the machine, and their ops are registered for tensors on the CPU.
//
// The library is linked with --wrap for the calls into torch that are named __wrap_… here. What an
// op asks a tensor's address for is what its kernels may reach: to read, or to write as well.
#include <cuda_runtime.h>
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <unordered_map>

#include "machine.h"

extern "C" AOTITorchError __real_torch_get_mutable_data_ptr(AtenTensorHandle tensor, void** data);

namespace {

std::unordered_map<const void*, std::string>& kernel_names() {
  static std::unordered_map<const void*, std::string> names;
  return names;
}

struct Configuration {
  dim3 grid, block;
};
thread_local Configuration configuration;
thread_local std::string error;

int64_t bytes_of(int32_t dtype) {
  for (const int32_t one :
       {aoti_torch_dtype_bool(), aoti_torch_dtype_uint8(), aoti_torch_dtype_int8()})
    if (dtype == one) return 1;
  for (const int32_t two : {aoti_torch_dtype_float16(), aoti_torch_dtype_bfloat16(),
                            aoti_torch_dtype_int16(), aoti_torch_dtype_uint16()})
    if (dtype == two) return 2;
  for (const int32_t four : {aoti_torch_dtype_float32(), aoti_torch_dtype_int32()})
    if (dtype == four) return 4;
  return 8;
}

// From a tensor's first element to the end of its last.
size_t extent(AtenTensorHandle tensor) {
  int64_t dimensions = 0, last = 0;
  int64_t *sizes = nullptr, *strides = nullptr;
  int32_t dtype = 0;
  aoti_torch_get_dim(tensor, &dimensions);
  aoti_torch_get_sizes(tensor, &sizes);
  aoti_torch_get_strides(tensor, &strides);
  aoti_torch_get_dtype(tensor, &dtype);
  for (int64_t d = 0; d < dimensions; ++d) {
    if (sizes[d] == 0) return 0;
    last += (sizes[d] - 1) * strides[d];
  }
  return size_t((last + 1) * bytes_of(dtype));
}

void add(AtenTensorHandle tensor, const void* data, bool writable) {
  if (const size_t size = extent(tensor)) ptx::add_area(data, size, writable);
}

// New memory, which a kernel must write before anyone reads it.
void spoil(AtenTensorHandle tensor) {
  void* data = nullptr;
  __real_torch_get_mutable_data_ptr(tensor, &data);
  if (const size_t size = extent(tensor)) ptx::add_unwritten(data, size);
}

}  // namespace

// ---- the CUDA runtime, as far as nvcc's host code and cuda/common/cuda.h call it

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  kernel_names()[host] = name;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t, CUstream_st*) {
  configuration = {grid, block};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = 0;
  *static_cast<void**>(stream) = nullptr;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t,
                               cudaStream_t) {
  error = ptx::launch(kernel_names().at(kernel), grid.x, block.x, arguments);
  return error.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t cudaGetLastError() {
  return error.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

const char* cudaGetErrorString(cudaError_t) {
  static thread_local std::string last;
  last = std::exchange(error, {});
  return last.c_str();
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 9;  // of compute capability
  return cudaSuccess;
}

// ---- torch

AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return AOTI_TORCH_SUCCESS;
}

// A CudaLaunch holds one, as long as it launches.
AOTITorchError __wrap_aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  static int any;
  *guard = reinterpret_cast<DeviceGuardHandle>(&any);
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError __wrap_aoti_torch_delete_device_guard(DeviceGuardHandle) {
  ptx::forget_areas();
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError __real_torch_get_const_data_ptr(AtenTensorHandle tensor, const void** data);
AOTITorchError __wrap_torch_get_const_data_ptr(AtenTensorHandle tensor, const void** data) {
  const AOTITorchError result = __real_torch_get_const_data_ptr(tensor, data);
  if (result == AOTI_TORCH_SUCCESS) add(tensor, *data, false);
  return result;
}

AOTITorchError __wrap_torch_get_mutable_data_ptr(AtenTensorHandle tensor, void** data) {
  const AOTITorchError result = __real_torch_get_mutable_data_ptr(tensor, data);
  if (result == AOTI_TORCH_SUCCESS) add(tensor, *data, true);
  return result;
}

AOTITorchError __real_torch_call_dispatcher(const char* op, const char* overload,
                                            StableIValue* stack, uint64_t version);
AOTITorchError __wrap_torch_call_dispatcher(const char* op, const char* overload,
                                            StableIValue* stack, uint64_t version) {
  const AOTITorchError result = __real_torch_call_dispatcher(op, overload, stack, version);
  if (result != AOTI_TORCH_SUCCESS) return result;
  for (const char* allocates : {"aten::empty", "aten::new_empty", "aten::empty_like"})
    if (std::strcmp(op, allocates) == 0) spoil(reinterpret_cast<AtenTensorHandle>(stack[0]));
  return result;
}

AOTITorchError __real_aoti_torch_empty_strided(int64_t, const int64_t*, const int64_t*, int32_t,
                                               int32_t, int32_t, AtenTensorHandle*);
AOTITorchError __wrap_aoti_torch_empty_strided(int64_t dims, const int64_t* sizes,
                                               const int64_t* strides, int32_t dtype, int32_t kind,
                                               int32_t index, AtenTensorHandle* tensor) {
  const AOTITorchError result =
      __real_aoti_torch_empty_strided(dims, sizes, strides, dtype, kind, index, tensor);
  if (result == AOTI_TORCH_SUCCESS) spoil(*tensor);
  return result;
}

AOTITorchError __real_aoti_torch_library_init_impl(const char* library, const char* key,
                                                   const char* file, uint32_t line,
                                                   TorchLibraryHandle* result);
AOTITorchError __wrap_aoti_torch_library_init_impl(const char* library, const char* key,
                                                   const char* file, uint32_t line,
                                                   TorchLibraryHandle* result) {
  const bool cuda = std::strcmp(key, "CUDA") == 0;
  return __real_aoti_torch_library_init_impl(library, cuda ? "CPU" : key, file, line, result);
}

}  // extern "C"
