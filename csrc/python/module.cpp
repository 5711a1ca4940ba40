// The Python module ichfast._C_python: tells how ichfast was built, walks DICOM headers, and
// flushes denormals. The ops are not in it: their libraries know no Python.
#include <cstdint>
#include <string_view>
#include <vector>

#include "cpu/common/simd.h"
#include "dicom/elements.h"
#include "python/denormals.h"
#include "python/objects.h"

namespace ichfast {
namespace {

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

Reference build_info(PyObject* arguments) {
  if (!PyArg_ParseTuple(arguments, ":build_info")) throw PythonError();
  return own(Py_BuildValue("{s:s, s:s, s:s, s:z, s:z}", "compiler", kCompiler, "torch_target",
                           "2.11", "simd", simd_level(), "cuda_toolkit", kCudaToolkit,
                           "cuda_architectures", kCudaArchitectures));
}

uint32_t read_tag(PyObject* tag) {
  const unsigned long number = PyLong_AsUnsignedLong(tag);
  if (PyErr_Occurred()) throw PythonError();
  if (number > UINT32_MAX) {
    PyErr_Format(PyExc_OverflowError, "a tag has 32 bits, and %R has more", tag);
    throw PythonError();
  }
  return uint32_t(number);
}

Reference bytes(std::string_view value) {
  return own(PyBytes_FromStringAndSize(value.data(), Py_ssize_t(value.size())));
}

// Of data, tags, is_sequence: values and VRs by tag, the transfer syntax, and where PixelData
// begins; None where pydicom has to look. The tags ascend.
Reference dicom_elements(PyObject* arguments) {
  PyObject *data, *tags, *is_sequence;
  if (!PyArg_ParseTuple(arguments, "SO!O:dicom_elements", &data, &PyTuple_Type, &tags,
                        &is_sequence))
    throw PythonError();
  const std::string_view file(PyBytes_AsString(data), size_t(PyBytes_Size(data)));
  std::vector<uint32_t> wanted(size_t(PyTuple_Size(tags)));
  for (size_t i = 0; i < wanted.size(); ++i)
    wanted[i] = read_tag(PyTuple_GetItem(tags, Py_ssize_t(i)));
  const auto asked = [&](uint32_t tag) {
    const Reference answer = own(PyObject_CallFunction(is_sequence, "I", unsigned(tag)));
    return check(PyObject_IsTrue(answer.get())) != 0;
  };
  const Reference values = own(PyDict_New()), vrs = own(PyDict_New());
  try {
    dicom::Walk walk(file, asked);
    const auto header =
        walk.header(wanted.data(), wanted.size(), [&](size_t i, auto vr, auto value) {
          PyObject* tag = PyTuple_GetItem(tags, Py_ssize_t(i));
          check(PyDict_SetItem(values.get(), tag, bytes(value).get()));
          check(PyDict_SetItem(vrs.get(), tag, bytes(vr).get()));
        });
    return own(Py_BuildValue("(OOs#n)", values.get(), vrs.get(), header.syntax.data(),
                             Py_ssize_t(header.syntax.size()), Py_ssize_t(header.pixels)));
  } catch (const dicom::Unsure&) {
    return own(Py_NewRef(Py_None));
  }
}

// Of on, threads: what held before on the calling thread.
Reference flush_denormals(PyObject* arguments) {
  int on, threads;
  if (!PyArg_ParseTuple(arguments, "pi:flush_denormals", &on, &threads)) throw PythonError();
  return own(PyBool_FromLong(ichfast::flush_denormals(on != 0, threads)));
}

PyMethodDef functions[] = {
    {"build_info", call<build_info>, METH_VARARGS, nullptr},
    {"dicom_elements", call<dicom_elements>, METH_VARARGS, nullptr},
    {"flush_denormals", call<flush_denormals>, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_C_python",
    .m_doc = "How ichfast was built, the walk over DICOM headers, and the switch for denormals.",
    .m_methods = functions,
};

}  // namespace
}  // namespace ichfast

PyMODINIT_FUNC PyInit__C_python() {
  return PyModuleDef_Init(&ichfast::module);
}
