#include <pybind11/stl.h>

#include "flow_outcome.hpp"
#include "reluflow/deep.hpp"

namespace reluflow::bindings {
namespace {

struct DeepOutcome {
  FlowOutcome flow;
  Vector theta;
};

Array bound_deep_forward(const Architecture& architecture, const Array& theta, const Array& inputs,
                         int num_threads) {
  const VectorView t = vector(theta);
  const MatrixView x = matrix(inputs);
  Matrix values;
  {
    const py::gil_scoped_release unlocked;
    values = deep_forward(architecture, t, x, num_threads);
  }
  return to_array(values);
}

py::tuple bound_deep_gradient(const Architecture& architecture, const Array& theta,
                              const Array& inputs, const Array& targets, MarginLoss loss,
                              int num_threads) {
  DeepObjective objective(architecture, matrix(inputs), vector(targets), loss, num_threads,
                          nullptr);
  const Vector start = vector(theta);
  Vector velocity;
  double log_loss = 0.0;
  {
    const py::gil_scoped_release unlocked;
    log_loss = objective.evaluate(start, velocity);
  }
  return py::make_tuple(log_loss, to_array(objective.margins()), to_array(objective.weights()),
                        to_array(velocity));
}

DeepOutcome bound_deep_flow(const Architecture& architecture, const Array& theta,
                            const Array& inputs, const Array& targets, MarginLoss loss,
                            FlowMethod method, double log_inverse_loss, double rtol,
                            double largest_move, double max_evaluations, double max_seconds,
                            int num_threads, const py::object& progress) {
  const MatrixView x = matrix(inputs);
  const VectorView y = vector(targets);
  FlowOptions options;
  options.log_inverse_loss = log_inverse_loss;
  options.rtol = rtol;
  options.max_evaluations = max_evaluations;
  options.method = method;
  options.largest_move = largest_move;
  options.descend = true;
  const FlowObserver observer = observer_of(progress);
  DeepOutcome outcome;
  outcome.theta = vector(theta);
  const py::gil_scoped_release unlocked;
  Control control(max_seconds, &interrupted);
  DeepObjective objective(architecture, x, y, loss, num_threads, &control);
  Team alone;  // the objective's products bring their own threads
  outcome.flow = integrate(objective, outcome.theta, options, alone, control, observer);
  return outcome;
}

}  // namespace

void bind_deep(py::module_& module) {
  py::enum_<Activation>(module, "Activation", py::module_local())
      .value("relu", Activation::relu)
      .value("leaky_relu", Activation::leaky_relu)
      .value("polynomial_relu", Activation::polynomial_relu)
      .value("normalized_polynomial_relu", Activation::normalized_polynomial_relu);

  py::class_<Architecture>(module, "Architecture", py::module_local())
      .def(py::init([](std::vector<Index> widths, std::vector<bool> biased, Activation activation,
                       double parameter, bool skip) {
             return Architecture{std::move(widths), std::move(biased), activation, parameter, skip};
           }),
           py::arg("widths"), py::arg("biased"), py::arg("activation"), py::arg("parameter"),
           py::arg("skip"))
      .def_property_readonly("size", &Architecture::size)
      .def_property_readonly("degree", &Architecture::degree);

  def_outcome<DeepOutcome>(module, "DeepFlowOutcome")
      .def_property_readonly("theta", [](const DeepOutcome& o) { return to_array(o.theta); });

  module.def("deep_forward", &bound_deep_forward, py::arg("architecture"), py::arg("theta"),
             py::arg("inputs"), py::arg("num_threads"));
  module.def("deep_gradient", &bound_deep_gradient, py::arg("architecture"), py::arg("theta"),
             py::arg("inputs"), py::arg("targets"), py::arg("loss"), py::arg("num_threads"));
  module.def("deep_gradient_flow", &bound_deep_flow, py::arg("architecture"), py::arg("theta"),
             py::arg("inputs"), py::arg("targets"), py::arg("loss"), py::arg("method"),
             py::arg("log_inverse_loss"), py::arg("rtol"), py::arg("largest_move"),
             py::arg("max_evaluations"), py::arg("max_seconds"), py::arg("num_threads"),
             py::arg("progress"));
}

}  // namespace reluflow::bindings
