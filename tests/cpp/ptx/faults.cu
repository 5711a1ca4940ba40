// Kernels with a fault each: the tests of the PTX run (test_faults.py). All take numbers (n,), n a
// multiple of 256, and return as many.
#include <cuda_runtime.h>

#include "cuda/common/cuda.h"

// What reduce.h is without its barriers.
#define __syncthreads() (void)0
#include "kernels/common/reduce.h"
#undef __syncthreads

namespace ichfast {
namespace {

constexpr int kThreads = CudaLaunch::kThreads;

#define KERNEL(name) \
  __global__ void __launch_bounds__(kThreads) name(const float* in, float* out, int64_t n)

__device__ int64_t index() {
  return int64_t(blockIdx.x) * kThreads + threadIdx.x;
}

KERNEL(no_fault) {
  __shared__ float turned[kThreads];
  turned[threadIdx.x] = in[index()];
  __syncthreads();
  const float other = turned[kThreads - 1 - threadIdx.x];
  out[index()] = other + __shfl_down_sync(0xffffffffu, other, 1) * 0.0f;
}

KERNEL(missing_barrier) {
  float mine[1] = {in[index()]};
  out[index()] = block_sum<float, kThreads>(mine)[0];
}

KERNEL(race_in_a_warp) {
  __shared__ float of_lane[32];
  if (threadIdx.x < 32) {
    of_lane[threadIdx.x] = in[index()];
    out[index()] = of_lane[(threadIdx.x + 1) % 32];
  }
}

KERNEL(late_writer) {
  __shared__ float first;
  if (threadIdx.x == 0) first = in[index()];
  __syncthreads();
  out[index()] = first;
  if (threadIdx.x == 1) first = 0;
}

KERNEL(unwritten_shared) {
  __shared__ float some[kThreads];
  if (threadIdx.x != 77) some[threadIdx.x] = in[index()];
  __syncthreads();
  out[index()] = some[threadIdx.x];
}

KERNEL(divergent_barrier) {
  if (threadIdx.x != 99) __syncthreads();
  out[index()] = in[index()];
}

KERNEL(divergent_shuffle) {
  float x = in[index()];
  if (threadIdx.x % 32 < 16) x = __shfl_down_sync(0xffffffffu, x, 1);
  out[index()] = x;
}

KERNEL(load_behind_the_end) {
  out[index()] = in[index() + 1];
}

KERNEL(store_before_the_beginning) {
  out[index() - 1] = in[index()];
}

KERNEL(store_into_an_argument) {
  const_cast<float*>(in)[index()] = out[index()] = 1;
}

KERNEL(misaligned_vector) {
  float values[4];
  if (index() < n / 4 - 1) {
    load_vector<4>(in + 4 * index() + 1, values);
    store_vector<4>(out + 4 * index(), values);
  }
}

KERNEL(two_writers) {
  out[index() == 300 ? 299 : index()] = in[index()];
}

KERNEL(reads_a_neighbours_result) {
  out[index()] = in[index()];
  if (threadIdx.x == 5) out[index() + 1] = 2 * out[index() - 1];
}

// Called with one tensor as both.
KERNEL(shifts_in_place) {
  out[index()] = in[(index() + 1) % n];
}

KERNEL(reads_unwritten_memory) {
  const float was = out[index()];
  out[index()] = was > 0 ? in[index()] : 0;
}

KERNEL(division_by_zero) {
  const int by = int(in[index()]);
  out[index()] = float(int(n) / by);
}

// The hardware's approximations: of e = 2^x in even places, of 1/x in odd ones.
KERNEL(approximations) {
  const float x = in[index()];
  float result;
  if (threadIdx.x % 2 == 0)
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  else
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  out[index()] = result;
}

using Kernel = void (*)(const float*, float*, int64_t);
const struct {
  const char* name;
  Kernel kernel;
} kKernels[] = {
#define NAMED(name) {#name, name}
    NAMED(no_fault),
    NAMED(missing_barrier),
    NAMED(race_in_a_warp),
    NAMED(late_writer),
    NAMED(unwritten_shared),
    NAMED(divergent_barrier),
    NAMED(divergent_shuffle),
    NAMED(load_behind_the_end),
    NAMED(store_before_the_beginning),
    NAMED(store_into_an_argument),
    NAMED(misaligned_vector),
    NAMED(two_writers),
    NAMED(reads_a_neighbours_result),
    NAMED(shifts_in_place),
    NAMED(reads_unwritten_memory),
    NAMED(division_by_zero),
    NAMED(approximations),
};

Tensor run(const Tensor& numbers, const std::string& kernel) {
  const CudaLaunch launch(numbers);
  const int64_t n = numbers.size(0);
  Tensor result = allocate(numbers, {n});
  const auto fill = [&](Kernel function, const Tensor& with) {
    launch(function, n / kThreads, with.const_data_ptr<float>(), result.mutable_data_ptr<float>(),
           n);
  };
  for (const auto& [name, function] : kKernels) {
    if (kernel != name) continue;
    if (function == shifts_in_place) fill(no_fault, numbers);
    fill(function, function == shifts_in_place ? result : numbers);
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY(ichfast_faults, m) {
  m.def("run(Tensor numbers, str kernel) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(ichfast_faults, CUDA, m) {
  m.impl("run", TORCH_BOX(&run));
}

}  // namespace ichfast
