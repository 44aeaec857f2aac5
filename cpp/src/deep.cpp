#include "reluflow/deep.hpp"

#include <cmath>

#include "reluflow/products.hpp"

namespace reluflow {
namespace {

/// Where the parameters of one layer lie in theta.
struct Span {
  Index weights;
  Index bias;
  Index end;
};

Span span_of(const Architecture& architecture, Index layer) {
  Index begin = 0;
  for (Index l = 0;; ++l) {
    const auto at = static_cast<std::size_t>(l);
    const Index rows = architecture.widths[at + 1];
    const Index bias = begin + rows * architecture.widths[at];
    const Index end = bias + (architecture.biased[at] ? rows : 0);
    if (l == layer) return {begin, bias, end};
    begin = end;
  }
}

MatrixView weights_of(const Architecture& architecture, const double* theta, Index layer) {
  const auto at = static_cast<std::size_t>(layer);
  return {theta + span_of(architecture, layer).weights, architecture.widths[at + 1],
          architecture.widths[at]};
}

bool is_normalized(const Architecture& architecture) {
  return architecture.activation == Activation::normalized_polynomial_relu;
}

/// ||(w, b)|| of every unit of a layer.
Vector unit_norms(const Architecture& architecture, const double* theta, Index layer) {
  const Span span = span_of(architecture, layer);
  Vector squares = weights_of(architecture, theta, layer).rowwise().squaredNorm();
  for (Index j = 0; j < span.end - span.bias; ++j) squares[j] += std::pow(theta[span.bias + j], 2);
  return squares.cwiseSqrt();
}

void activate(const Architecture& architecture, const Matrix& z, const Vector& norms, Matrix& out) {
  const double parameter = architecture.parameter;
  switch (architecture.activation) {
    case Activation::relu:
      out = z.cwiseMax(0.0);
      return;
    case Activation::leaky_relu:
      out = (z.array() > 0.0).select(z, parameter * z);
      return;
    case Activation::polynomial_relu:
      out = z.cwiseMax(0.0).unaryExpr([=](double r) { return std::pow(r, parameter); });
      return;
    case Activation::normalized_polynomial_relu:
      // (r / s)^p s: a unit whose weights are zero has the output zero.
      out.resize(z.rows(), z.cols());
      for (Index j = 0; j < z.cols(); ++j) {
        const double s = norms[j];
        for (Index i = 0; i < z.rows(); ++i) {
          out(i, j) = z(i, j) > 0.0 ? s * std::pow(z(i, j) / s, parameter) : 0.0;
        }
      }
      return;
  }
}

/// Turns d/d(activations) into d/d(pre-activations), at fixed norms.
void differentiate(const Architecture& architecture, const Matrix& z, const Vector& norms,
                   Matrix& gradient) {
  const double parameter = architecture.parameter;
  switch (architecture.activation) {
    case Activation::relu:
      gradient = (z.array() > 0.0).select(gradient, 0.0);
      return;
    case Activation::leaky_relu:
      gradient = (z.array() > 0.0).select(gradient, parameter * gradient);
      return;
    case Activation::polynomial_relu:
      gradient.array() *= z.array().max(0.0).unaryExpr(
          [=](double r) { return r > 0.0 ? parameter * std::pow(r, parameter - 1.0) : 0.0; });
      return;
    case Activation::normalized_polynomial_relu:
      for (Index j = 0; j < z.cols(); ++j) {
        const double s = norms[j];
        for (Index i = 0; i < z.rows(); ++i) {
          const double r = z(i, j);
          gradient(i, j) *= r > 0.0 ? parameter * std::pow(r / s, parameter - 1.0) : 0.0;
        }
      }
      return;
  }
}

/// Pre-activations of one layer.
void affine(const Architecture& architecture, const double* theta, Index layer,
            const MatrixView& inputs, Matrix& out, int num_threads, Control* control) {
  const MatrixView weights = weights_of(architecture, theta, layer);
  out.resize(inputs.rows(), weights.rows());
  multiply(inputs, weights.transpose(), out, num_threads, control);
  const Span span = span_of(architecture, layer);
  if (span.end > span.bias) {
    out.rowwise() += VectorView(theta + span.bias, span.end - span.bias).transpose();
  }
}

MatrixView view(const Matrix& matrix) { return {matrix.data(), matrix.rows(), matrix.cols()}; }

MatrixView skip_of(const Architecture& architecture, const double* theta) {
  const Index size = architecture.outputs() * architecture.inputs();
  return {theta + architecture.size() - size, architecture.outputs(), architecture.inputs()};
}

}  // namespace

Index Architecture::size() const {
  return span_of(*this, layers() - 1).end + (skip ? outputs() * inputs() : 0);
}

DeepObjective::DeepObjective(const Architecture& architecture, const MatrixView& inputs,
                             const VectorView& targets, const MarginLoss& loss, int num_threads,
                             Control* control)
    : architecture_(architecture),
      inputs_(inputs),
      targets_(targets),
      loss_(loss),
      num_threads_(num_threads),
      control_(control),
      layers_(static_cast<std::size_t>(architecture.layers())) {}

double DeepObjective::evaluate(const Vector& theta, Vector& velocity) {
  forward(theta);
  set_margins();
  const double log_loss = log_loss_weights(loss_, margins_, weights_);
  velocity.setZero(size());
  backward(theta, output_gradient(), velocity);
  return log_loss;
}

void DeepObjective::forward(const Vector& theta) {
  MatrixView last = inputs_;
  for (Index l = 0; l < architecture_.layers(); ++l) {
    Layer& layer = layers_[static_cast<std::size_t>(l)];
    affine(architecture_, theta.data(), l, last, layer.preactivations, num_threads_, control_);
    if (l + 1 < architecture_.layers()) {
      if (is_normalized(architecture_)) layer.norms = unit_norms(architecture_, theta.data(), l);
      activate(architecture_, layer.preactivations, layer.norms, layer.activations);
      new (&last) MatrixView(view(layer.activations));
    }
  }
  if (architecture_.skip) {
    layers_.back().preactivations.noalias() +=
        inputs_ * skip_of(architecture_, theta.data()).transpose();
  }
}

void DeepObjective::set_margins() {
  const Matrix& outputs = layers_.back().preactivations;
  if (outputs.cols() == 1) {
    margins_ = targets_.cwiseProduct(outputs.col(0));
    return;
  }
  margins_.resize(outputs.rows());
  for (Index i = 0; i < outputs.rows(); ++i) {
    const auto own = static_cast<Index>(targets_[i]);
    double largest = -std::numeric_limits<double>::infinity();
    for (Index q = 0; q < outputs.cols(); ++q) {
      if (q != own) largest = std::max(largest, outputs(i, q));
    }
    double sum = 0.0;
    for (Index q = 0; q < outputs.cols(); ++q) {
      if (q != own) sum += std::exp(outputs(i, q) - largest);
    }
    margins_[i] = outputs(i, own) - largest - std::log(sum);
  }
}

Matrix DeepObjective::output_gradient() const {
  const Matrix& outputs = layers_.back().preactivations;
  Matrix gradient(outputs.rows(), outputs.cols());
  if (outputs.cols() == 1) {
    gradient.col(0) = weights_.cwiseProduct(targets_);
    return gradient;
  }
  for (Index i = 0; i < outputs.rows(); ++i) {
    const auto own = static_cast<Index>(targets_[i]);
    // outputs(own) - margin is the log-sum-exp of the others.
    const double others = outputs(i, own) - margins_[i];
    for (Index q = 0; q < outputs.cols(); ++q) {
      gradient(i, q) = -weights_[i] * std::exp(outputs(i, q) - others);
    }
    gradient(i, own) = weights_[i];
  }
  return gradient;
}

void DeepObjective::backward(const Vector& theta, Matrix gradient, Vector& velocity) {
  if (architecture_.skip) {
    const Index size = architecture_.outputs() * architecture_.inputs();
    MutableMatrixView skip(velocity.data() + velocity.size() - size, architecture_.outputs(),
                           architecture_.inputs());
    multiply(gradient.transpose(), inputs_, skip, num_threads_, control_);
  }
  for (Index l = architecture_.layers() - 1; l >= 0; --l) {
    const Layer& layer = layers_[static_cast<std::size_t>(l)];
    const Span span = span_of(architecture_, l);
    const MatrixView weights = weights_of(architecture_, theta.data(), l);
    MutableMatrixView moved(velocity.data() + span.weights, weights.rows(), weights.cols());
    Eigen::Map<Vector> moved_bias(velocity.data() + span.bias, span.end - span.bias);

    // Here `gradient` is d/d(activations) of a hidden layer, d/d(outputs) of the last one.
    Vector radial;
    if (l + 1 < architecture_.layers()) {
      if (is_normalized(architecture_)) {
        // d/d log s of s (r/s)^p is (1 - p) of it, and d s / d(w, b) = (w, b) / s.
        radial = (gradient.cwiseProduct(layer.activations)).colwise().sum().transpose();
        radial.array() *= 1.0 - architecture_.parameter;
        for (Index j = 0; j < radial.size(); ++j) {
          radial[j] = layer.norms[j] > 0.0 ? radial[j] / (layer.norms[j] * layer.norms[j]) : 0.0;
        }
      }
      differentiate(architecture_, layer.preactivations, layer.norms, gradient);
    }
    const MatrixView inputs =
        l == 0 ? inputs_ : view(layers_[static_cast<std::size_t>(l - 1)].activations);
    multiply(gradient.transpose(), inputs, moved, num_threads_, control_);
    if (moved_bias.size() > 0) moved_bias = gradient.colwise().sum().transpose();
    if (radial.size() > 0) {
      moved += radial.asDiagonal() * weights;
      if (moved_bias.size() > 0) {
        moved_bias += radial.cwiseProduct(VectorView(theta.data() + span.bias, moved_bias.size()));
      }
    }
    if (l > 0) {
      Matrix below(gradient.rows(), weights.cols());
      multiply(gradient, weights, below, num_threads_, control_);
      gradient.swap(below);
    }
  }
}

double Architecture::degree() const {
  const bool polynomial = activation == Activation::polynomial_relu ||
                          activation == Activation::normalized_polynomial_relu;
  const double power = polynomial ? parameter : 1.0;
  // ||(w, b)||^(power - 1) takes the degree of the unit's own weights back to 1.
  const double divided =
      activation == Activation::normalized_polynomial_relu ? parameter - 1.0 : 0.0;
  double degree = 1.0;
  for (Index layer = 1; layer < layers(); ++layer) degree = power * degree - divided + 1.0;
  return degree;
}

double DeepObjective::normalized_margin(double margin, double norm) const {
  return margin / std::pow(norm, architecture_.degree());
}

std::vector<Index> DeepObjective::unreachable() const {
  std::vector<Index> found;
  const bool leaks = architecture_.skip || (architecture_.activation == Activation::leaky_relu &&
                                            architecture_.parameter != 0.0);
  if (leaks) return found;
  for (Index i = 0; i < targets_.size(); ++i) {
    // Biases behind the last layer that is silent still learn from the example.
    bool silent = false;
    for (Index l = 0; l < architecture_.layers(); ++l) {
      if (architecture_.biased[static_cast<std::size_t>(l)]) silent = false;
      if (l + 1 < architecture_.layers()) {
        const Matrix& z = layers_[static_cast<std::size_t>(l)].preactivations;
        silent = silent || !(z.row(i).array() > 0.0).any();
      }
    }
    if (silent) found.push_back(i);
  }
  return found;
}

Matrix deep_forward(const Architecture& architecture, const VectorView& theta,
                    const MatrixView& inputs, int num_threads) {
  Matrix values, activations;
  MatrixView last = inputs;
  for (Index l = 0; l < architecture.layers(); ++l) {
    affine(architecture, theta.data(), l, last, values, num_threads, nullptr);
    if (l + 1 == architecture.layers()) break;
    const Vector norms =
        is_normalized(architecture) ? unit_norms(architecture, theta.data(), l) : Vector();
    activate(architecture, values, norms, activations);
    new (&last) MatrixView(view(activations));
  }
  if (architecture.skip) {
    values.noalias() += inputs * skip_of(architecture, theta.data()).transpose();
  }
  return values;
}

}  // namespace reluflow
