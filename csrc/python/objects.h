// What the Python module is written with: references that end with their scope, and Python's errors
// as C++ exceptions. Nothing here or in the module is outside CPython's limited API, so one build
// runs on every CPython that the wheel names.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <exception>
#include <memory>
#include <new>

namespace ichfast {

// Python has an error set.
struct PythonError {};

struct Release {
  void operator()(PyObject* object) const { Py_DECREF(object); }
};
using Reference = std::unique_ptr<PyObject, Release>;

// Takes over a new reference from a function that returns null where it sets an error.
inline Reference own(PyObject* object) {
  if (object == nullptr) throw PythonError();
  return Reference(object);
}

// For functions that return a negative number where they set an error.
inline int check(int result) {
  if (result < 0) throw PythonError();
  return result;
}

// A function of the module as Python calls it (METH_VARARGS): no exception leaves it.
template <Reference (*function)(PyObject* arguments)>
PyObject* call(PyObject*, PyObject* arguments) noexcept {
  try {
    return function(arguments).release();
  } catch (const PythonError&) {
    return nullptr;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

}  // namespace ichfast
