#pragma once

#include <pybind11/functional.h>

#include "arrays.hpp"
#include "reluflow/flow.hpp"

namespace reluflow::bindings {

/// Columns: log_inverse_loss, rescaled_time, norm, normalized_margin, evaluations.
inline Array trajectory_array(const std::vector<FlowPoint>& points) {
  Matrix table(static_cast<Index>(points.size()), 5);
  for (Index i = 0; i < table.rows(); ++i) {
    const FlowPoint& p = points[static_cast<std::size_t>(i)];
    table.row(i) << p.log_inverse_loss, p.rescaled_time, p.norm, p.normalized_margin, p.evaluations;
  }
  return to_array(table);
}

inline FlowObserver observer_of(const py::object& progress) {
  if (progress.is_none()) return {};
  return [&progress](const FlowPoint& p) {
    const py::gil_scoped_acquire lock;
    progress(p.log_inverse_loss, p.normalized_margin, p.evaluations);
  };
}

/// What every outcome with a member `flow` shows of it.
template <class Outcome>
py::class_<Outcome> def_outcome(py::module_& module, const char* name) {
  return py::class_<Outcome>(module, name, py::module_local())
      .def_property_readonly("status", [](const Outcome& o) { return o.flow.status; })
      .def_property_readonly("trajectory",
                             [](const Outcome& o) { return trajectory_array(o.flow.trajectory); })
      .def_property_readonly("unreachable",
                             [](const Outcome& o) { return to_array(o.flow.unreachable); })
      .def_property_readonly("margins", [](const Outcome& o) { return to_array(o.flow.margins); })
      .def_property_readonly("accepted_steps",
                             [](const Outcome& o) { return o.flow.accepted_steps; })
      .def_property_readonly("rejected_steps",
                             [](const Outcome& o) { return o.flow.rejected_steps; });
}

}  // namespace reluflow::bindings
