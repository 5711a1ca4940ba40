// The Python module ichfast._C. Loading it registers the ops; the module itself tells how it was
// built, walks DICOM headers, and flushes denormals. A unit of its own: pybind11 and the stable
// headers do not mix (see common/torch.h).
#include <pybind11/pybind11.h>

#include <vector>

#include "cpu/common/denormals.h"
#include "cpu/common/simd.h"
#include "dicom/elements.h"

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

// Values and VRs by tag, the transfer syntax, and where PixelData begins; None where pydicom has to
// look. The tags ascend.
pybind11::object dicom_elements(const pybind11::bytes& data, const pybind11::tuple& tags,
                                const pybind11::function& is_sequence) {
  std::vector<uint32_t> wanted;
  for (const auto& tag : tags) wanted.push_back(tag.cast<uint32_t>());
  const auto asked = [&](uint32_t tag) { return is_sequence(tag).cast<bool>(); };
  pybind11::dict values, vrs;
  try {
    ichfast::dicom::Walk walk(std::string_view(data), asked);
    const auto header =
        walk.header(wanted.data(), wanted.size(), [&](size_t i, auto vr, auto value) {
          values[tags[i]] = pybind11::bytes(value.data(), value.size());
          vrs[tags[i]] = pybind11::bytes(vr.data(), vr.size());
        });
    return pybind11::make_tuple(
        values, vrs, pybind11::str(header.syntax.data(), header.syntax.size()), header.pixels);
  } catch (const ichfast::dicom::Unsure&) {
    return pybind11::none();
  }
}

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
  m.def("dicom_elements", &dicom_elements);
  m.def("flush_denormals", &ichfast::flush_denormals);
}
