#include <pybind11/stl.h>

#include "flow_outcome.hpp"
#include "reluflow/adversarial.hpp"

namespace reluflow::bindings {
namespace {

using AttackOrder = py::array_t<std::int64_t, py::array::c_style>;

AttackedExamples attacked(const Array& inputs, const Array& labels, const Array& targets,
                          const AttackOrder& order) {
  return {matrix(inputs),
          vector(labels),
          matrix(targets),
          {order.data(), order.shape(0), order.shape(1)}};
}

struct AdversarialOutcome {
  FlowOutcome flow;
  Network network;
  Matrix coefficients;
  double seconds;
};

AdversarialPoints bound_adversarial_points(const Array& weights, const Array& bias,
                                           const Array& output, const Array& inputs,
                                           const Array& labels, const Array& targets,
                                           const AttackOrder& target_order, double radius,
                                           int descent_steps, double spread, int num_threads) {
  const Network net = network(weights, bias, output);
  const AttackedExamples examples = attacked(inputs, labels, targets, target_order);
  const py::gil_scoped_release unlocked;
  return adversarial_points(net, examples, {radius, descent_steps}, spread, num_threads);
}

LossGradient bound_adversarial_gradient(const Array& weights, const Array& bias,
                                        const Array& output, const Array& inputs,
                                        const Array& labels, const Array& targets,
                                        const AttackOrder& target_order, const MarginLoss& loss,
                                        bool train_output, bool train_bias, double radius,
                                        int descent_steps, int num_threads) {
  const Network net = network(weights, bias, output);
  const AttackedExamples examples = attacked(inputs, labels, targets, target_order);
  const py::gil_scoped_release unlocked;
  AdversarialObjective objective(examples, net.output.size(), loss, {train_output, train_bias},
                                 {radius, descent_steps}, num_threads, nullptr);
  Vector velocity;
  LossGradient gradient;
  gradient.log_loss = objective.evaluate(objective.pack(net), velocity);
  gradient.margins = objective.margins();
  gradient.example_weights = objective.weights();
  gradient.velocity = objective.unpack(velocity);
  return gradient;
}

AdversarialOutcome bound_adversarial_flow(
    const Array& weights, const Array& bias, const Array& output, const Array& inputs,
    const Array& labels, const Array& targets, const AttackOrder& target_order,
    const MarginLoss& loss, bool train_output, bool train_bias, double radius, int descent_steps,
    FlowMethod method, double log_inverse_loss, double rtol, double max_evaluations,
    double max_seconds, int num_threads, const py::object& progress) {
  const Network initial = network(weights, bias, output);
  const AttackedExamples examples = attacked(inputs, labels, targets, target_order);
  const FlowObserver observer = observer_of(progress);
  AdversarialOutcome outcome;
  const py::gil_scoped_release unlocked;
  Control control(max_seconds, &interrupted);
  AdversarialObjective objective(examples, initial.output.size(), loss, {train_output, train_bias},
                                 {radius, descent_steps}, num_threads, &control);
  Vector theta = objective.pack(initial);
  Team alone;  // the objective brings its own threads
  outcome.flow = integrate(objective, theta, {log_inverse_loss, rtol, max_evaluations, method},
                           alone, control, observer);
  outcome.network = objective.unpack(theta);
  outcome.coefficients = objective.coefficients();
  outcome.seconds = control.seconds();
  return outcome;
}

}  // namespace

void bind_adversarial(py::module_& module) {
  py::class_<AdversarialPoints>(module, "AdversarialPoints", py::module_local())
      .def_property_readonly("example",
                             [](const AdversarialPoints& p) { return to_array(p.example); })
      .def_property_readonly("margins",
                             [](const AdversarialPoints& p) { return to_array(p.margins); })
      .def_property_readonly("multipliers",
                             [](const AdversarialPoints& p) { return to_array(p.multipliers); })
      .def_property_readonly("coefficients",
                             [](const AdversarialPoints& p) { return to_array(p.coefficients); });

  def_outcome<AdversarialOutcome>(module, "AdversarialFlowOutcome")
      .def_readonly("seconds", &AdversarialOutcome::seconds)
      .def_property_readonly(
          "weights", [](const AdversarialOutcome& o) { return to_array(o.network.weights); })
      .def_property_readonly("bias",
                             [](const AdversarialOutcome& o) { return to_array(o.network.bias); })
      .def_property_readonly("output",
                             [](const AdversarialOutcome& o) { return to_array(o.network.output); })
      .def_property_readonly("coefficients",
                             [](const AdversarialOutcome& o) { return to_array(o.coefficients); });

  module.def("adversarial_points", &bound_adversarial_points, py::arg("weights"), py::arg("bias"),
             py::arg("output"), py::arg("inputs"), py::arg("labels"), py::arg("targets"),
             py::arg("target_order"), py::arg("radius"), py::arg("descent_steps"),
             py::arg("spread"), py::arg("num_threads"));
  module.def("adversarial_gradient", &bound_adversarial_gradient, py::arg("weights"),
             py::arg("bias"), py::arg("output"), py::arg("inputs"), py::arg("labels"),
             py::arg("targets"), py::arg("target_order"), py::arg("loss"), py::arg("train_output"),
             py::arg("train_bias"), py::arg("radius"), py::arg("descent_steps"),
             py::arg("num_threads"));
  module.def("adversarial_gradient_flow", &bound_adversarial_flow, py::arg("weights"),
             py::arg("bias"), py::arg("output"), py::arg("inputs"), py::arg("labels"),
             py::arg("targets"), py::arg("target_order"), py::arg("loss"), py::arg("train_output"),
             py::arg("train_bias"), py::arg("radius"), py::arg("descent_steps"), py::arg("method"),
             py::arg("log_inverse_loss"), py::arg("rtol"), py::arg("max_evaluations"),
             py::arg("max_seconds"), py::arg("num_threads"), py::arg("progress"));
}

}  // namespace reluflow::bindings
