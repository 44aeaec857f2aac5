#include <pybind11/stl.h>

#include <optional>
#include <tuple>

#include "flow_outcome.hpp"
#include "reluflow/training.hpp"

namespace reluflow::bindings {
namespace {

TrainedNetwork bound_flow(const Array& weights, const Array& bias, const Array& output,
                          const Array& inputs, const Array& labels, const MarginLoss& loss,
                          bool train_output, bool train_bias, bool gram_form, FlowMethod method,
                          double kink_ramp, double log_inverse_loss, double rtol,
                          double max_evaluations, double max_seconds, int num_threads,
                          const py::object& progress, const std::optional<Array>& gram) {
  FlowProblem problem{network(weights, bias, output), matrix(inputs), vector(labels), gram_form};
  if (gram) new (&problem.gram_matrix) MatrixView(matrix(*gram));  // as Eigen reseats a view
  const FlowSetup setup{loss,
                        {train_output, train_bias},
                        kink_ramp,
                        {log_inverse_loss, rtol, max_evaluations, method}};
  const FlowObserver observer = observer_of(progress);
  const py::gil_scoped_release unlocked;
  Control control(max_seconds, &interrupted);
  TrainedNetwork result;
  Team::run(useful_threads(problem, num_threads),
            [&](Team& team) { result = follow_flow(problem, setup, team, control, observer); });
  return result;
}

using NetworkArrays = std::tuple<Array, Array, Array>;
using DataArrays = std::tuple<Array, Array>;

std::vector<TrainedNetwork> bound_flows(const std::vector<NetworkArrays>& networks,
                                        const std::vector<DataArrays>& data,
                                        const std::vector<bool>& gram, const MarginLoss& loss,
                                        bool train_output, bool train_bias, FlowMethod method,
                                        double kink_ramp, double log_inverse_loss, double rtol,
                                        double max_evaluations, double max_seconds, int num_threads,
                                        const py::object& progress) {
  std::vector<FlowProblem> problems;
  for (std::size_t i = 0; i < networks.size(); ++i) {
    const auto& [weights, bias, output] = networks[i];
    const auto& [inputs, labels] = data[i];
    problems.push_back({network(weights, bias, output), matrix(inputs), vector(labels), gram[i]});
  }
  const FlowSetup setup{loss,
                        {train_output, train_bias},
                        kink_ramp,
                        {log_inverse_loss, rtol, max_evaluations, method}};
  std::function<void(Index)> report;
  if (!progress.is_none()) {
    report = [&progress](Index done) {
      const py::gil_scoped_acquire lock;
      progress(done);
    };
  }
  const py::gil_scoped_release unlocked;
  return follow_flows(problems, setup, num_threads, max_seconds, &interrupted, report);
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

  def_outcome<TrainedNetwork>(module, "FlowOutcome")
      .def_readonly("seconds", &TrainedNetwork::seconds)
      .def_property_readonly("weights",
                             [](const TrainedNetwork& o) { return to_array(o.network.weights); })
      .def_property_readonly("bias",
                             [](const TrainedNetwork& o) { return to_array(o.network.bias); })
      .def_property_readonly("output",
                             [](const TrainedNetwork& o) { return to_array(o.network.output); });

  module.def("gradient_flow", &bound_flow, py::arg("weights"), py::arg("bias"), py::arg("output"),
             py::arg("inputs"), py::arg("labels"), py::arg("loss"), py::arg("train_output"),
             py::arg("train_bias"), py::arg("gram_form"), py::arg("method"), py::arg("kink_ramp"),
             py::arg("log_inverse_loss"), py::arg("rtol"), py::arg("max_evaluations"),
             py::arg("max_seconds"), py::arg("num_threads"), py::arg("progress"),
             py::arg("gram") = py::none());
  module.def("gradient_flow_ensemble", &bound_flows, py::arg("networks"), py::arg("data"),
             py::arg("gram"), py::arg("loss"), py::arg("train_output"), py::arg("train_bias"),
             py::arg("method"), py::arg("kink_ramp"), py::arg("log_inverse_loss"), py::arg("rtol"),
             py::arg("max_evaluations"), py::arg("max_seconds"), py::arg("num_threads"),
             py::arg("progress"));
}

}  // namespace reluflow::bindings
