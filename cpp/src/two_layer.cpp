#include "reluflow/two_layer.hpp"

#include <cmath>

#include "reluflow/products.hpp"

namespace reluflow {
namespace {

// Neurons whose column sums one task computes.
constexpr Index kNeuronBlock = 64;

/// Turns pre-activations into activations, row block by row block, and returns the margins.
bool activate(const ConstMatrixRef& preactivations, const ConstVectorRef& output,
              const Vector& labels, Matrix& activations, Vector& margins, int num_threads,
              Control* control) {
  const Index n = preactivations.rows();
  margins.resize(n);
  const double work = 3.0 * static_cast<double>(preactivations.size());
  return parallel_for(block_count(n, kRowBlock), threads_for(work, num_threads), control,
                      [&](Index index) {
                        const Block rows = block_at(index, n, kRowBlock);
                        auto block = activations.middleRows(rows.begin, rows.size);
                        block = preactivations.middleRows(rows.begin, rows.size).cwiseMax(0.0);
                        margins.segment(rows.begin, rows.size).noalias() = block * output;
                        margins.segment(rows.begin, rows.size).array() *=
                            labels.segment(rows.begin, rows.size).array();
                      });
}

/// From activations and signed example weights: the gradient with respect to the pre-activations
/// and, where they are asked for, to output and bias.
template <class Backpropagated>
void backpropagate(const Matrix& activations, const Vector& output, const Vector& signed_weights,
                   Backpropagated&& backpropagated, Eigen::Ref<Vector> output_velocity,
                   Vector* bias_velocity, int num_threads) {
  const Index n = activations.rows();
  const Index m = activations.cols();
  const double work = 4.0 * static_cast<double>(activations.size());
  parallel_for(block_count(m, kNeuronBlock), threads_for(work, num_threads), nullptr,
               [&](Index index) {
                 const Block neurons = block_at(index, m, kNeuronBlock);
                 const auto v = output.segment(neurons.begin, neurons.size).transpose().array();
                 Eigen::ArrayXd dv = Eigen::ArrayXd::Zero(neurons.size);
                 Eigen::ArrayXd db = Eigen::ArrayXd::Zero(neurons.size);
                 for (Index i = 0; i < n; ++i) {
                   const auto a = activations.row(i).segment(neurons.begin, neurons.size).array();
                   auto g = backpropagated.row(i).segment(neurons.begin, neurons.size).array();
                   const double weight = signed_weights[i];
                   dv += weight * a.transpose();
                   g = (a > 0.0).select(weight * v, 0.0);
                   db += g.transpose();
                 }
                 output_velocity.segment(neurons.begin, neurons.size) = dv.matrix();
                 if (bias_velocity) bias_velocity->segment(neurons.begin, neurons.size) = db;
               });
}

std::vector<Index> without_helpful_neuron(const Matrix& activations, const Vector& output,
                                          const Vector& labels) {
  std::vector<Index> found;
  for (Index i = 0; i < activations.rows(); ++i) {
    const auto helpful = (output.array() * labels[i] > 0.0).transpose();
    if (!(helpful && activations.row(i).array() > 0.0).any()) found.push_back(i);
  }
  return found;
}

}  // namespace

PrimalObjective::PrimalObjective(const MatrixView& inputs, const VectorView& labels, Index width,
                                 Loss loss, Trained trained, int num_threads, Control* control)
    : inputs_(inputs),
      labels_(labels),
      width_(width),
      loss_(loss),
      trained_(trained),
      num_threads_(num_threads),
      control_(control),
      activations_(inputs.rows(), width),
      backpropagated_(inputs.rows(), width) {}

double PrimalObjective::evaluate(const Vector& theta, Vector& velocity) {
  const Index d = inputs_.cols();
  const MatrixView weights(theta.data(), width_, d);
  const VectorView bias(theta.data() + width_ * d, width_);
  output_ = theta.tail(width_);
  velocity.resize(theta.size());

  multiply(inputs_, weights.transpose(), activations_, num_threads_, control_);
  activations_.rowwise() += bias.transpose();
  activate(activations_, output_, labels_, activations_, margins_, num_threads_, control_);
  const double log_loss = log_loss_weights(loss_, margins_, weights_);

  const Vector signed_weights = weights_.cwiseProduct(labels_);
  Vector bias_velocity(width_);
  backpropagate(activations_, output_, signed_weights, backpropagated_, velocity.tail(width_),
                &bias_velocity, num_threads_);
  MutableMatrixView weight_velocity(velocity.data(), width_, d);
  multiply(backpropagated_.transpose(), inputs_, weight_velocity, num_threads_, control_);
  velocity.segment(width_ * d, width_) =
      trained_.bias ? bias_velocity : Vector::Zero(width_).eval();
  if (!trained_.output) velocity.tail(width_).setZero();
  return log_loss;
}

std::vector<Index> PrimalObjective::unreachable() const {
  return without_helpful_neuron(activations_, output_, labels_);
}

Vector PrimalObjective::pack(const Network& network) const {
  Vector theta(size());
  theta << Eigen::Map<const Vector>(network.weights.data(), network.weights.size()), network.bias,
      network.output;
  return theta;
}

Network PrimalObjective::unpack(const Vector& theta) const {
  const Index d = inputs_.cols();
  return {MatrixView(theta.data(), width_, d), theta.segment(width_ * d, width_),
          theta.tail(width_)};
}

GramObjective::GramObjective(const MatrixView& inputs, const VectorView& labels,
                             const Network& initial, Loss loss, Trained trained, int num_threads,
                             Control* control)
    : inputs_(inputs),
      labels_(labels),
      initial_(initial),
      width_(initial.output.size()),
      loss_(loss),
      trained_(trained),
      num_threads_(num_threads),
      control_(control),
      gram_(inputs.rows(), inputs.rows()),
      initial_preactivations_(inputs.rows(), initial.output.size()),
      initial_squared_norm_(initial.weights.squaredNorm() + initial.bias.squaredNorm()),
      activations_(inputs.rows(), initial.output.size()) {
  multiply(inputs_, inputs_.transpose(), gram_, num_threads_, control_);
  if (trained_.bias) gram_.array() += 1.0;
  multiply(inputs_, initial_.weights.transpose(), initial_preactivations_, num_threads_, control_);
  initial_preactivations_.rowwise() += initial_.bias.transpose();
}

Vector GramObjective::start() const {
  Vector theta = Vector::Zero(size());
  const Index block = initial_preactivations_.size();
  theta.segment(block, block) = Eigen::Map<const Vector>(initial_preactivations_.data(), block);
  theta.tail(width_) = initial_.output;
  return theta;
}

double GramObjective::evaluate(const Vector& theta, Vector& velocity) {
  const Index n = inputs_.rows();
  const Index block = n * width_;
  const MatrixView preactivations(theta.data() + block, n, width_);
  output_ = theta.tail(width_);
  velocity.resize(theta.size());

  activate(preactivations, output_, labels_, activations_, margins_, num_threads_, control_);
  const double log_loss = log_loss_weights(loss_, margins_, weights_);

  const Vector signed_weights = weights_.cwiseProduct(labels_);
  MutableMatrixView coefficient_velocity(velocity.data(), n, width_);
  MutableMatrixView preactivation_velocity(velocity.data() + block, n, width_);
  backpropagate(activations_, output_, signed_weights, coefficient_velocity, velocity.tail(width_),
                nullptr, num_threads_);
  multiply(gram_, coefficient_velocity, preactivation_velocity, num_threads_, control_);
  if (!trained_.output) velocity.tail(width_).setZero();
  return log_loss;
}

double GramObjective::squared_norm(const Vector& theta) const {
  // ||w~0 + X~^T a||^2 = ||w~0||^2 + a . (z0 + z), because z = z0 + K a.
  const Index block = initial_preactivations_.size();
  const auto coefficients = theta.head(block);
  const Eigen::Map<const Vector> initial(initial_preactivations_.data(), block);
  return initial_squared_norm_ + coefficients.dot(theta.segment(block, block) + initial) +
         theta.tail(width_).squaredNorm();
}

double GramObjective::squared_difference_norm(const Vector& difference) const {
  // ||X~^T a||^2 = a . K a, and K a is the difference of the pre-activations.
  const Index block = initial_preactivations_.size();
  return std::max(0.0, difference.head(block).dot(difference.segment(block, block))) +
         difference.tail(width_).squaredNorm();
}

std::vector<Index> GramObjective::unreachable() const {
  return without_helpful_neuron(activations_, output_, labels_);
}

Network GramObjective::unpack_difference(const Vector& difference) const {
  const MatrixView coefficients(difference.data(), inputs_.rows(), width_);
  Network moved{Matrix(width_, inputs_.cols()), Vector::Zero(width_), difference.tail(width_)};
  multiply(coefficients.transpose(), inputs_, moved.weights, num_threads_);
  if (trained_.bias) moved.bias = coefficients.colwise().sum().transpose();
  return moved;
}

Network GramObjective::unpack(const Vector& theta) const {
  Network network = unpack_difference(theta);
  network.weights += initial_.weights;
  network.bias += initial_.bias;
  return network;
}

LossGradient primal_gradient(const Network& network, const MatrixView& inputs,
                             const VectorView& labels, Loss loss, Trained trained,
                             int num_threads) {
  PrimalObjective objective(inputs, labels, network.output.size(), loss, trained, num_threads,
                            nullptr);
  Vector velocity;
  const double log_loss = objective.evaluate(objective.pack(network), velocity);
  return {log_loss, objective.margins(), objective.weights(), objective.unpack(velocity)};
}

LossGradient gram_gradient(const Network& network, const MatrixView& inputs,
                           const VectorView& labels, Loss loss, Trained trained, int num_threads) {
  GramObjective objective(inputs, labels, network, loss, trained, num_threads, nullptr);
  Vector velocity;
  const double log_loss = objective.evaluate(objective.start(), velocity);
  return {log_loss, objective.margins(), objective.weights(),
          objective.unpack_difference(velocity)};
}

}  // namespace reluflow
