#include <string>

#include "arrays.hpp"
#include "reluflow/losses.hpp"
#include "reluflow/products.hpp"
#include "reluflow/two_layer.hpp"

namespace reluflow::bindings {
namespace {

// The lock is released around every kernel: arguments are views into arrays that the caller's
// references keep alive, and no kernel touches a Python object.
Array bound_forward(const Array& weights, const Array& bias, const Array& output,
                    const Array& inputs, int num_threads) {
  const MatrixView w = matrix(weights), x = matrix(inputs);
  const VectorView b = vector(bias), v = vector(output);
  Vector values;
  {
    const py::gil_scoped_release unlocked;
    values = forward(w, b, v, x, num_threads);
  }
  return to_array(values);
}

Array bound_gram_matrix(const Array& inputs, bool bias_feature, int num_threads) {
  const MatrixView x = matrix(inputs);
  Matrix gram;
  {
    const py::gil_scoped_release unlocked;
    Team::run(num_threads, [&](Team& team) { gram = gram_matrix(x, bias_feature, team); });
  }
  return to_array(gram);
}

py::tuple bound_log_loss_weights(const Array& margins, const MarginLoss& loss) {
  Vector weights;
  const double log_loss = log_loss_weights(loss, vector(margins), weights);
  return py::make_tuple(log_loss, to_array(weights));
}

using Gradient = LossGradient (*)(const Network&, const MatrixView&, const VectorView&, MarginLoss,
                                  Trained, double, int);

template <Gradient gradient>
LossGradient bound_gradient(const Array& weights, const Array& bias, const Array& output,
                            const Array& inputs, const Array& labels, const MarginLoss& loss,
                            bool train_output, bool train_bias, int num_threads, double kink_ramp) {
  const Network net = network(weights, bias, output);
  const MatrixView x = matrix(inputs);
  const VectorView y = vector(labels);
  const py::gil_scoped_release unlocked;
  return gradient(net, x, y, loss, {train_output, train_bias}, kink_ramp, num_threads);
}

template <Gradient gradient>
void def_gradient(py::module_& module, const char* name) {
  module.def(name, &bound_gradient<gradient>, py::arg("weights"), py::arg("bias"),
             py::arg("output"), py::arg("inputs"), py::arg("labels"), py::arg("loss"),
             py::arg("train_output"), py::arg("train_bias"), py::arg("num_threads"),
             py::arg("kink_ramp") = 0.0);
}

}  // namespace

void bind_network(py::module_& module) {
  py::enum_<Loss>(module, "Loss", py::module_local())
      .value("exponential", Loss::exponential)
      .value("logistic", Loss::logistic)
      .value("hinge", Loss::hinge)
      .value("squared", Loss::squared)
      .value("cross_entropy", Loss::cross_entropy);

  py::class_<MarginLoss>(module, "MarginLoss", py::module_local())
      .def(py::init<Loss, double>(), py::arg("kind"), py::arg("label_smoothing") = 0.0);
  py::implicitly_convertible<Loss, MarginLoss>();

  py::class_<LossGradient>(module, "LossGradient", py::module_local())
      .def_readonly("log_loss", &LossGradient::log_loss)
      .def_property_readonly("margins", [](const LossGradient& g) { return to_array(g.margins); })
      .def_property_readonly("example_weights",
                             [](const LossGradient& g) { return to_array(g.example_weights); })
      .def_property_readonly("weights",
                             [](const LossGradient& g) { return to_array(g.velocity.weights); })
      .def_property_readonly("bias",
                             [](const LossGradient& g) { return to_array(g.velocity.bias); })
      .def_property_readonly("output",
                             [](const LossGradient& g) { return to_array(g.velocity.output); });

  module.def("forward", &bound_forward, py::arg("weights"), py::arg("bias"), py::arg("output"),
             py::arg("inputs"), py::arg("num_threads"));
  module.def("log_loss_weights", &bound_log_loss_weights, py::arg("margins"), py::arg("loss"));
  module.def("gram_matrix", &bound_gram_matrix, py::arg("inputs"), py::arg("bias_feature"),
             py::arg("num_threads"));
  def_gradient<&primal_gradient>(module, "primal_gradient");
  def_gradient<&gram_gradient>(module, "gram_gradient");
}

}  // namespace reluflow::bindings
