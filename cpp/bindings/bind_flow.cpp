#include "flow_outcome.hpp"
#include "reluflow/two_layer.hpp"

namespace reluflow::bindings {
namespace {

struct BoundOutcome {
  FlowOutcome flow;
  Network network;
};

BoundOutcome bound_flow(const Array& weights, const Array& bias, const Array& output,
                        const Array& inputs, const Array& labels, MarginLoss loss,
                        bool train_output, bool train_bias, bool gram, FlowMethod method,
                        double kink_ramp, double log_inverse_loss, double rtol,
                        double max_evaluations, double max_seconds, int num_threads,
                        const py::object& progress) {
  const Network initial = network(weights, bias, output);
  const MatrixView x = matrix(inputs);
  const VectorView y = vector(labels);
  const FlowOptions options{log_inverse_loss, rtol, max_evaluations, method};
  const Trained trained{train_output, train_bias};
  const FlowObserver observer = observer_of(progress);
  const py::gil_scoped_release unlocked;
  Control control(max_seconds, &interrupted);
  BoundOutcome outcome;
  Team::run(num_threads, [&](Team& team) {
    if (gram) {
      GramObjective objective(x, y, initial, loss, trained, team, &control);
      objective.set_kink_ramp(kink_ramp);
      Vector theta = objective.start();
      outcome.flow = integrate(objective, theta, options, control, observer);
      outcome.network = objective.unpack(theta);
    } else {
      PrimalObjective objective(x, y, initial.output.size(), loss, trained, team, &control);
      objective.set_kink_ramp(kink_ramp);
      Vector theta = objective.pack(initial);
      outcome.flow = integrate(objective, theta, options, control, observer);
      outcome.network = objective.unpack(theta);
    }
  });
  return outcome;
}

}  // namespace

void bind_flow(py::module_& module) {
  py::enum_<FlowStatus>(module, "FlowStatus", py::module_local())
      .value("converged", FlowStatus::converged)
      .value("max_evaluations", FlowStatus::max_evaluations)
      .value("max_seconds", FlowStatus::max_seconds)
      .value("interrupted", FlowStatus::interrupted)
      .value("stuck_points", FlowStatus::stuck_points)
      .value("dead_class", FlowStatus::dead_class)
      .value("not_separable", FlowStatus::not_separable)
      .value("step_underflow", FlowStatus::step_underflow)
      .value("stationary", FlowStatus::stationary);

  py::enum_<FlowMethod>(module, "FlowMethod", py::module_local())
      .value("bogacki_shampine", FlowMethod::bogacki_shampine)
      .value("rkc2", FlowMethod::rkc2);

  def_outcome<BoundOutcome>(module, "FlowOutcome")
      .def_property_readonly("weights",
                             [](const BoundOutcome& o) { return to_array(o.network.weights); })
      .def_property_readonly("bias", [](const BoundOutcome& o) { return to_array(o.network.bias); })
      .def_property_readonly("output",
                             [](const BoundOutcome& o) { return to_array(o.network.output); });

  module.def("gradient_flow", &bound_flow, py::arg("weights"), py::arg("bias"), py::arg("output"),
             py::arg("inputs"), py::arg("labels"), py::arg("loss"), py::arg("train_output"),
             py::arg("train_bias"), py::arg("gram"), py::arg("method"), py::arg("kink_ramp"),
             py::arg("log_inverse_loss"), py::arg("rtol"), py::arg("max_evaluations"),
             py::arg("max_seconds"), py::arg("num_threads"), py::arg("progress"));
}

}  // namespace reluflow::bindings
