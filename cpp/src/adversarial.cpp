#include "reluflow/adversarial.hpp"

#include <cmath>

#include "reluflow/products.hpp"

namespace reluflow {
namespace {

/// What all examples share at one network.
class Attacked {
 public:
  Attacked(const MatrixView& weights, const VectorView& bias, const VectorView& output,
           const AttackedExamples& examples, const Attack& attack, double spread, int num_threads,
           Control* control)
      : examples_(examples),
        attack_(attack),
        spread_(spread),
        num_threads_(num_threads),
        control_(control),
        neurons_(weights, num_threads),
        sides_{SignedOutput(output, 0.0, -1.0), SignedOutput(output, 0.0, 1.0)},
        preactivations_(examples.inputs.rows(), weights.rows()),
        targets_(examples.targets.rows(), weights.rows()) {
    multiply(examples.inputs, weights.transpose(), preactivations_, num_threads, control);
    multiply(examples.targets, weights.transpose(), targets_, num_threads, control);
    preactivations_.rowwise() += bias.transpose();
    targets_.rowwise() += bias.transpose();
  }

  Index size() const { return examples_.inputs.rows(); }
  const Matrix& preactivations() const { return preactivations_; }

  /// found(i, minima of example i) for all examples, on any thread; starts from `last`, multipliers
  /// (n, m) of points found before, too.
  template <class Found>
  void for_each(const Matrix& last, const Found& found) const {
    const double width = static_cast<double>(neurons_.size());
    const double work = 40.0 * static_cast<double>(size()) * width * width;
    parallel_for(size(), threads_for(work, num_threads_), control_,
                 [&](Index i) { found(i, minima_of(i, last.row(i))); });
  }

 private:
  std::vector<AdversarialPoint> minima_of(Index i, const Vector& last) const {
    const SignedOutput& side = sides_[examples_.labels[i] > 0.0 ? 1 : 0];
    const PointProblem problem{neurons_, side, preactivations_.row(i), side.constant};
    if (attack_.descent_steps > 0) {
      return {projected_gradient_descent(problem, attack_.radius, attack_.descent_steps)};
    }
    BallSearch search(problem, attack_.radius, spread_);
    search.from_subset(active_subset(problem, -last), &last);
    AdversarialTargets targets{targets_, {}, {}};
    for (Index s = 0; s < examples_.target_order.cols(); ++s) {
      const Index target = examples_.target_order(i, s);
      if (target < 0) break;
      targets.order.push_back(target);
      targets.distance.push_back((examples_.targets.row(target) - examples_.inputs.row(i)).norm());
    }
    search_in_ball(problem, attack_.radius, targets, search);
    return search.minima();
  }

  const AttackedExamples& examples_;
  const Attack& attack_;
  double spread_;
  int num_threads_;
  Control* control_;
  Neurons neurons_;
  SignedOutput sides_[2];  // of labels -1 and +1
  Matrix preactivations_;
  Matrix targets_;
};

AdversarialPoints stacked(const std::vector<std::vector<AdversarialPoint>>& minima, Index width) {
  AdversarialPoints points;
  for (std::size_t i = 0; i < minima.size(); ++i) {
    points.example.insert(points.example.end(), minima[i].size(), static_cast<Index>(i));
  }
  const auto count = static_cast<Index>(points.example.size());
  points.margins.resize(count);
  points.multipliers.resize(count, width);
  points.coefficients.resize(count, width);
  Index row = 0;
  for (const auto& of_example : minima) {
    for (const AdversarialPoint& point : of_example) {
      points.margins[row] = point.value;
      points.multipliers.row(row) = point.multipliers;
      points.coefficients.row(row++) = point.coefficients;
    }
  }
  return points;
}

}  // namespace

AdversarialPoints adversarial_points(const Network& network, const AttackedExamples& examples,
                                     const Attack& attack, double spread, int num_threads,
                                     Control* control) {
  const MatrixView weights(network.weights.data(), network.weights.rows(), network.weights.cols());
  const VectorView bias(network.bias.data(), network.bias.size());
  const VectorView output(network.output.data(), network.output.size());
  const Attacked attacked(weights, bias, output, examples, attack, spread, num_threads, control);
  std::vector<std::vector<AdversarialPoint>> minima(static_cast<std::size_t>(attacked.size()));
  const Matrix none = Matrix::Zero(attacked.size(), network.output.size());
  attacked.for_each(none, [&](Index i, std::vector<AdversarialPoint> found) {
    minima[static_cast<std::size_t>(i)] = std::move(found);
  });
  return stacked(minima, network.output.size());
}

AdversarialObjective::AdversarialObjective(const AttackedExamples& examples, Index width,
                                           const MarginLoss& loss, Trained trained,
                                           const Attack& attack, int num_threads, Control* control)
    : examples_(examples),
      labels_(examples.labels),
      width_(width),
      loss_(loss),
      trained_(trained),
      attack_(attack),
      num_threads_(num_threads),
      control_(control) {
  const Index n = labels_.size();
  margins_ = Vector::Zero(n);
  points_.margins = Vector::Zero(n);
  points_.multipliers = Matrix::Zero(n, width);
  points_.coefficients = Matrix::Zero(n, width);
}

double AdversarialObjective::evaluate(const Vector& theta, Vector& velocity) {
  const Index d = examples_.inputs.cols(), n = labels_.size();
  const MatrixView weights(theta.data(), width_, d);
  const VectorView bias(theta.data() + width_ * d, width_);
  const VectorView output(theta.data() + width_ * (d + 1), width_);
  velocity = Vector::Zero(size());
  const Attacked attacked(weights, bias, output, examples_, attack_, 0.0, num_threads_, control_);
  Matrix activations(n, width_);
  const Matrix last = points_.multipliers;
  attacked.for_each(last, [&](Index i, const std::vector<AdversarialPoint>& found) {
    margins_[i] = found.front().value;
    points_.multipliers.row(i) = found.front().multipliers;
    points_.coefficients.row(i) = found.front().coefficients;
    activations.row(i) = found.front().preactivations.cwiseMax(0.0);
  });
  preactivations_ = attacked.preactivations();
  output_ = output;
  const double log_loss = log_loss_weights(loss_, margins_, weights_);
  if (control_ && control_->reason() != StopReason::none) return log_loss;

  // An example is pushed at inputs + weights^T coefficients.
  const Matrix pushes = weights_.asDiagonal() * points_.multipliers;
  MutableMatrixView moved(velocity.data(), width_, d);
  multiply(pushes.transpose(), examples_.inputs, moved, num_threads_, control_);
  const Matrix mixed = pushes.transpose() * points_.coefficients;
  Matrix perturbed(width_, d);
  multiply(mixed, weights, perturbed, num_threads_, control_);
  moved += perturbed;
  if (trained_.bias) velocity.segment(width_ * d, width_) = pushes.colwise().sum();
  if (trained_.output) {
    velocity.tail(width_) = activations.transpose() * weights_.cwiseProduct(labels_);
  }
  return log_loss;
}

std::vector<Index> AdversarialObjective::unreachable() const {
  std::vector<Index> found;
  for (Index i = 0; i < labels_.size(); ++i) {
    const auto helpful = (output_.array() * labels_[i] > 0.0).transpose();
    if (!(helpful && preactivations_.row(i).array() > 0.0).any()) found.push_back(i);
  }
  return found;
}

Vector AdversarialObjective::pack(const Network& network) const {
  Vector theta(size());
  const Index d = examples_.inputs.cols();
  MutableMatrixView(theta.data(), width_, d) = network.weights;
  theta.segment(width_ * d, width_) = network.bias;
  theta.tail(width_) = network.output;
  return theta;
}

Network AdversarialObjective::unpack(const Vector& theta) const {
  const Index d = examples_.inputs.cols();
  return {MatrixView(theta.data(), width_, d), theta.segment(width_ * d, width_),
          theta.tail(width_)};
}

}  // namespace reluflow
