// Where the kernels' tests run: on the host simulation, or, compiled by nvcc, on a GPU. There
// memory is allocated piece by piece and to the byte, so that compute-sanitizer sees each step
// outside.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#else
#include "host_sim.h"  // already there: the build includes it before all else
#endif

#include <cstdint>
#include <vector>

namespace ichfast {

#if defined(__CUDACC__)

inline void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

struct Launch {
  static constexpr int kThreads = 256;  // as cuda/*.cu
  static constexpr int64_t kPlentyOfBlocks = 16;

  template <class... Parameters, class... Arguments>
  void operator()(void (*kernel)(Parameters...), int64_t blocks,
                  const Arguments&... arguments) const {
    if (blocks == 0) return;
    kernel<<<unsigned(blocks), kThreads>>>(arguments...);
    require(cudaGetLastError(), "launch");
    require(cudaDeviceSynchronize(), "kernel");
  }
};

#else

using Launch = SimulatedLaunch;

#endif

// Bytes that kernels can reach: poisoned, or as they come, so that initcheck sees what a kernel
// reads and none has written.
class Memory {
 public:
  static constexpr unsigned char kPoison = 0xc3;

  explicit Memory(size_t size, bool poisoned = true) : size_(size) {
#if defined(__CUDACC__)
    if (size > 0) require(cudaMalloc(&data_, size), "cudaMalloc");
#else
    data_ = std::malloc(size);
#endif
    if (poisoned) write(std::vector<unsigned char>(size, kPoison));
  }
  ~Memory() {
#if defined(__CUDACC__)
    if (size_ > 0) cudaFree(data_);
#else
    std::free(data_);
#endif
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  unsigned char* data() const { return static_cast<unsigned char*>(data_); }

  void write(const std::vector<unsigned char>& bytes) {
    if (size_ == 0) return;
#if defined(__CUDACC__)
    require(cudaMemcpy(data_, bytes.data(), size_, cudaMemcpyHostToDevice), "copy");
#else
    std::memcpy(data_, bytes.data(), size_);
#endif
  }

  std::vector<unsigned char> read() const {
    std::vector<unsigned char> bytes(size_);
    if (size_ == 0) return bytes;
#if defined(__CUDACC__)
    require(cudaMemcpy(bytes.data(), data_, size_, cudaMemcpyDeviceToHost), "copy");
#else
    std::memcpy(bytes.data(), data_, size_);
#endif
    return bytes;
  }

 private:
  size_t size_;
  void* data_ = nullptr;
};

}  // namespace ichfast
