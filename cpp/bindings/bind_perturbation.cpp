#include "arrays.hpp"
#include "reluflow/line_mass.hpp"
#include "reluflow/perturbation.hpp"

namespace reluflow::bindings {
namespace {

using TargetOrder = py::array_t<std::int64_t, py::array::c_style>;

Flip flip_of(bool strict) { return strict ? Flip::strict : Flip::nonstrict; }

Array bound_ray_crossings(const Array& preactivations, const Array& slopes, const Array& signs,
                          const Array& output, double constant, const Array& labels, bool strict,
                          int num_threads) {
  Vector crossings;
  {
    const py::gil_scoped_release unlocked;
    crossings = ray_crossings(matrix(preactivations), vector(slopes), vector(signs), vector(output),
                              constant, vector(labels), flip_of(strict), num_threads);
  }
  return to_array(crossings);
}

Array bound_log_line_masses(const Array& preactivations, const Array& slopes, const Array& output,
                            double constant, const Array& lower, const Array& upper, bool strict,
                            int num_threads) {
  Vector masses;
  {
    const py::gil_scoped_release unlocked;
    masses = log_line_masses(matrix(preactivations), vector(slopes), vector(output), constant,
                             vector(lower), vector(upper), flip_of(strict), num_threads);
  }
  return to_array(masses);
}

SubsetProjections bound_subset_projections(const Array& rows, const Array& output, double constant,
                                           const Array& preactivations, const Array& labels,
                                           const Array& subsets, int num_threads) {
  const py::gil_scoped_release unlocked;
  return subset_projections(matrix(rows), vector(output), constant, matrix(preactivations),
                            vector(labels), matrix(subsets), num_threads);
}

PerturbationOutcome bound_min_perturbations(const Array& rows, const Array& output, double constant,
                                            double lipschitz, const Array& preactivations,
                                            const Array& labels, const Array& slack,
                                            const Array& targets, const TargetOrder& target_order,
                                            bool strict, double rtol, std::int64_t max_nodes,
                                            double max_seconds, int num_threads, bool keep_proofs) {
  const PointSet points{matrix(preactivations),
                        vector(labels),
                        vector(slack),
                        matrix(targets),
                        {target_order.data(), target_order.shape(0), target_order.shape(1)}};
  const PerturbationOptions options{flip_of(strict), rtol, max_nodes, num_threads, keep_proofs};
  const py::gil_scoped_release unlocked;
  Control control(max_seconds, &interrupted);
  return min_perturbations(matrix(rows), vector(output), constant, lipschitz, points, options,
                           control);
}

/// (n, R), 1 where an opposing neuron counts as active.
Array subset_table(const PerturbationOutcome& outcome) {
  Matrix table(outcome.coefficients.rows(), outcome.coefficients.cols());
  for (Index i = 0; i < table.rows(); ++i) {
    const Subset& subset = outcome.subsets[static_cast<std::size_t>(i)];
    for (Index j = 0; j < table.cols(); ++j) table(i, j) = subset[static_cast<std::size_t>(j)];
  }
  return to_array(table);
}

}  // namespace

void bind_perturbation(py::module_& module) {
  py::enum_<Proof>(module, "Proof", py::module_local())
      .value("none", Proof::none)
      .value("already_flipped", Proof::already_flipped)
      .value("neuronwise", Proof::neuronwise)
      .value("certificate", Proof::certificate)
      .value("relaxation", Proof::relaxation)
      .value("dual", Proof::dual)
      .value("branching", Proof::branching)
      .value("never_flips", Proof::never_flips);
  py::enum_<StopReason>(module, "StopReason", py::module_local())
      .value("none", StopReason::none)
      .value("interrupted", StopReason::interrupted)
      .value("deadline", StopReason::deadline);

  py::class_<ProofSteps>(module, "ProofSteps", py::module_local())
      .def_property_readonly("point", [](const ProofSteps& s) { return to_array(s.point); })
      .def_property_readonly("kind", [](const ProofSteps& s) { return to_array(s.kind); })
      .def_property_readonly("node", [](const ProofSteps& s) { return to_array(s.node); })
      .def_property_readonly("neuron", [](const ProofSteps& s) { return to_array(s.neuron); })
      .def_property_readonly("child", [](const ProofSteps& s) { return to_array(s.child); })
      .def_property_readonly("radius", [](const ProofSteps& s) { return to_array(s.radius); })
      .def_property_readonly("eta", [](const ProofSteps& s) { return to_array(s.eta); })
      .def_property_readonly("first", [](const ProofSteps& s) { return to_array(s.first); })
      .def_property_readonly("multiplier_neuron",
                             [](const ProofSteps& s) { return to_array(s.multiplier_neuron); })
      .def_property_readonly("multiplier",
                             [](const ProofSteps& s) { return to_array(s.multiplier); })
      .def_property_readonly("slope", [](const ProofSteps& s) { return to_array(s.slope); });

  using Outcome = PerturbationOutcome;
  py::class_<Outcome>(module, "PerturbationOutcome", py::module_local())
      .def_property_readonly("radius", [](const Outcome& o) { return to_array(o.radius); })
      .def_property_readonly("lower_bound",
                             [](const Outcome& o) { return to_array(o.lower_bound); })
      .def_property_readonly("coefficients",
                             [](const Outcome& o) { return to_array(o.coefficients); })
      .def_property_readonly("subsets", &subset_table)
      .def_property_readonly("proofs",
                             [](const Outcome& o) {
                               py::list proofs;
                               for (const Proof proof : o.proofs) proofs.append(py::cast(proof));
                               return proofs;
                             })
      .def_property_readonly("nodes", [](const Outcome& o) { return to_array(o.nodes); })
      .def_readonly("steps", &Outcome::steps)
      .def_readonly("stopped", &Outcome::stopped);

  py::class_<SubsetProjections>(module, "SubsetProjections", py::module_local())
      .def_property_readonly("distance",
                             [](const SubsetProjections& p) { return to_array(p.distance); })
      .def_property_readonly("lower_bound",
                             [](const SubsetProjections& p) { return to_array(p.lower_bound); })
      .def_property_readonly("coefficients",
                             [](const SubsetProjections& p) { return to_array(p.coefficients); });

  module.def("ray_crossings", &bound_ray_crossings, py::arg("preactivations"), py::arg("slopes"),
             py::arg("signs"), py::arg("output"), py::arg("constant"), py::arg("labels"),
             py::arg("strict"), py::arg("num_threads"));
  module.def("log_line_masses", &bound_log_line_masses, py::arg("preactivations"),
             py::arg("slopes"), py::arg("output"), py::arg("constant"), py::arg("lower"),
             py::arg("upper"), py::arg("strict"), py::arg("num_threads"));
  module.def("subset_projections", &bound_subset_projections, py::arg("rows"), py::arg("output"),
             py::arg("constant"), py::arg("preactivations"), py::arg("labels"), py::arg("subsets"),
             py::arg("num_threads"));
  module.def("min_perturbations", &bound_min_perturbations, py::arg("rows"), py::arg("output"),
             py::arg("constant"), py::arg("lipschitz"), py::arg("preactivations"),
             py::arg("labels"), py::arg("slack"), py::arg("targets"), py::arg("target_order"),
             py::arg("strict"), py::arg("rtol"), py::arg("max_nodes"), py::arg("max_seconds"),
             py::arg("num_threads"), py::arg("keep_proofs"));
}

}  // namespace reluflow::bindings
