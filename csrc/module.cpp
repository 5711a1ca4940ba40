// The Python module ichfast._C. Loading it registers the ops; the module itself tells how it was
// built. A unit of its own: pybind11 and the stable headers do not mix (see common/torch.h).
#include <pybind11/pybind11.h>

#include "common/simd.h"

#if defined(__clang__)
constexpr const char* kCompiler = __VERSION__;  // names itself
#else
constexpr const char* kCompiler = "GCC " __VERSION__;
#endif

// What setup.py built beside this library, if anything.
#if defined(ICHFAST_CUDA_TOOLKIT)
constexpr const char* kCudaToolkit = ICHFAST_CUDA_TOOLKIT;
constexpr const char* kCudaArchitectures = ICHFAST_CUDA_ARCHITECTURES;
#else
constexpr const char* kCudaToolkit = nullptr;  // None in Python
constexpr const char* kCudaArchitectures = nullptr;
#endif

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native library of ichfast: op schemas and CPU kernels.";
  m.def("build_info", [] {
    pybind11::dict info;
    info["compiler"] = kCompiler;
    info["torch_target"] = "2.11";
    info["simd"] = ichfast::simd_level();
    info["cuda_toolkit"] = kCudaToolkit;
    info["cuda_architectures"] = kCudaArchitectures;
    return info;
  });
}
