#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "reluflow/control.hpp"
#include "reluflow/network.hpp"
#include "reluflow/types.hpp"

namespace reluflow::bindings {

namespace py = pybind11;

using Array = py::array_t<double, py::array::c_style>;

inline MatrixView matrix(const Array& array) {
  return {array.data(), array.shape(0), array.shape(1)};
}

inline VectorView vector(const Array& array) { return {array.data(), array.shape(0)}; }

inline Array to_array(const Vector& values) { return Array(values.size(), values.data()); }

inline Array to_array(const Matrix& values) {
  return Array({values.rows(), values.cols()}, values.data());
}

inline py::array_t<std::int64_t> to_array(const std::vector<Index>& values) {
  return py::array_t<std::int64_t>(static_cast<py::ssize_t>(values.size()),
                                   reinterpret_cast<const std::int64_t*>(values.data()));
}

inline Network network(const Array& weights, const Array& bias, const Array& output) {
  return {matrix(weights), vector(bias), vector(output)};
}

/// Asks the interpreter for a pending Ctrl-C, and leaves it to the caller to say what was reached.
inline bool interrupted() {
  const py::gil_scoped_acquire lock;
  if (PyErr_CheckSignals() == 0) return false;
  PyErr_Clear();
  return true;
}

void bind_build(py::module_& module);
void bind_network(py::module_& module);
void bind_flow(py::module_& module);
void bind_deep(py::module_& module);
void bind_sampling(py::module_& module);
void bind_perturbation(py::module_& module);
void bind_adversarial(py::module_& module);

}  // namespace reluflow::bindings
