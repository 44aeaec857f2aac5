#include "reluflow/two_layer.hpp"

#include <algorithm>
#include <functional>
#include <iterator>
#include <numeric>

#include "reluflow/memory.hpp"
#include "reluflow/parallel.hpp"
#include "reluflow/products.hpp"
#include "reluflow/vectors.hpp"

namespace reluflow {
namespace {

using Eigen::internal::pand;
using Eigen::internal::pcmp_lt;
using Eigen::internal::pdiv;
using Eigen::internal::ploadu;
using Eigen::internal::pmadd;
using Eigen::internal::pmax;
using Eigen::internal::pmin;
using Eigen::internal::pmul;
using Eigen::internal::predux;
using Eigen::internal::pselect;
using Eigen::internal::pset1;
using Eigen::internal::psqrt;
using Eigen::internal::pstoreu;

// Examples whose outputs one task sums.
constexpr Index kExampleBlock = 64;

/// The examples, with a last column of ones for the bias: (w, b) . (x, 1).
Matrix with_bias_feature(const MatrixView& inputs) {
  Matrix features(inputs.rows(), inputs.cols() + 1);
  features << inputs, Vector::Ones(inputs.rows());
  return features;
}

/// Rows of a panel: parts (V, rows of length part_stride) = sums over every vector of v relu(z).
template <int V>
void outputs_of_rows(const double* z, Index rows, const double* output, double* parts,
                     Index part_stride) {
  const Packet zero = pset1<Packet>(0.0);
  Packet v[V];
#pragma GCC unroll 8
  for (int u = 0; u < V; ++u) v[u] = ploadu<Packet>(output + u * kLanes);
  for (Index i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int u = 0; u < V; ++u) {
      const Packet activation = pmax(ploadu<Packet>(z + (i * V + u) * kLanes), zero);
      parts[u * part_stride + i] = predux(pmul(activation, v[u]));
    }
  }
}

/// A panel of neurons, all examples: dv = sum weight relu(z).
template <int V>
void output_velocity_of_rows(const double* z, const Vector& signed_weights, double* velocity) {
  const Packet zero = pset1<Packet>(0.0);
  Packet dv[V];
#pragma GCC unroll 8
  for (int u = 0; u < V; ++u) dv[u] = zero;
  for (Index i = 0; i < signed_weights.size(); ++i) {
    const Packet weight = pset1<Packet>(signed_weights[i]);
#pragma GCC unroll 8
    for (int u = 0; u < V; ++u) {
      dv[u] = pmadd(weight, pmax(ploadu<Packet>(z + (i * V + u) * kLanes), zero), dv[u]);
    }
  }
#pragma GCC unroll 8
  for (int u = 0; u < V; ++u) pstoreu(velocity + u * kLanes, dv[u]);
}

/// The same: g = [z > 0] weight v.
template <int V>
void backpropagate_rows(const double* z, const Vector& signed_weights, const double* output,
                        double* g) {
  const Packet zero = pset1<Packet>(0.0);
  Packet v[V];
#pragma GCC unroll 8
  for (int u = 0; u < V; ++u) v[u] = ploadu<Packet>(output + u * kLanes);
  for (Index i = 0; i < signed_weights.size(); ++i) {
    const Packet weight = pset1<Packet>(signed_weights[i]);
#pragma GCC unroll 8
    for (int u = 0; u < V; ++u) {
      const Packet active = pcmp_lt(zero, ploadu<Packet>(z + (i * V + u) * kLanes));
      pstoreu(g + (i * V + u) * kLanes, pand(active, pmul(weight, v[u])));
    }
  }
}

std::vector<Index> first_indices(Index count) {
  std::vector<Index> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), Index{0});
  return indices;
}

/// 1 / (ramp rms(z)) for one SIMD vector of neurons, the mean taken over all examples.
Packet inverse_ramp(const double* z, Index stride, Index examples, double ramp) {
  Packet sum = pset1<Packet>(0.0);
  for (Index i = 0; i < examples; ++i) {
    const Packet preactivation = ploadu<Packet>(z + i * stride);
    sum = pmadd(preactivation, preactivation, sum);
  }
  const Packet mean = pmul(sum, pset1<Packet>(1.0 / static_cast<double>(examples)));
  return pdiv(pset1<Packet>(1.0 / ramp), psqrt(mean));
}

/// Scales g by min(1, z inverse) where it is negative, that is, where it pushes z down to 0.
void smooth_kinks(const double* z, Index stride, Index examples, Packet inverse, double* g) {
  const Packet zero = pset1<Packet>(0.0), one = pset1<Packet>(1.0);
  for (Index i = 0; i < examples; ++i) {
    const Packet own = ploadu<Packet>(g + i * stride);
    const Packet slope = pmin(one, pmul(ploadu<Packet>(z + i * stride), inverse));
    pstoreu(g + i * stride, pselect(pcmp_lt(own, zero), pmul(own, slope), own));
  }
}

}  // namespace

TwoLayerObjective::TwoLayerObjective(const VectorView& labels, Index width, MarginLoss loss,
                                     Trained trained, Team& team, Control* control)
    : labels_(labels),
      panels_(width),
      padded_rows_(block_count(labels.size(), kStripRows) * kStripRows),
      outputs_(panels_, padded_rows_),
      loss_(loss),
      trained_(trained),
      team_(team),
      control_(control),
      patterns_(panels_, labels.size()) {
  weighted_.reserve(static_cast<std::size_t>(examples()));
}

void NetworkOutputs::see(Index panel, Block rows, const double* preactivations) {
  const Index first = panels_.first_column(panel);
  with_panel_vectors(panels_.vectors(panel), [&](auto vectors) {
    outputs_of_rows<vectors>(preactivations, rows.size, output_ + first,
                             &parts_(first / kLanes, rows.begin), parts_.cols());
  });
}

void NetworkOutputs::sum(Block examples, Vector& outputs) const {
  auto total = outputs.segment(examples.begin, examples.size);
  total.setZero();
  for (Index u = 0; u < parts_.rows(); ++u) {
    total += parts_.row(u).segment(examples.begin, examples.size).transpose();
  }
}

void TwoLayerObjective::show_preactivations(const double* preactivations) {
  const double work = 2.0 * static_cast<double>(panels_.size(examples()));
  team_.for_each(panels_.count(), work, nullptr, [&](Index panel) {
    outputs_.see(panel, {0, padded_rows_}, preactivations + panels_.offset(panel, padded_rows_));
  });
}

double TwoLayerObjective::evaluate_margins() {
  margins_.resize(examples());
  const double work = kOperationsPerNumber * static_cast<double>(panels_.size(examples()) / kLanes);
  team_.for_each(block_count(examples(), kExampleBlock), work, nullptr, [&](Index index) {
    outputs_.sum(block_at(index, examples(), kExampleBlock), margins_);
  });
  margins_.array() *= labels_.array();
  return log_loss_weights(loss_, margins_, weights_);
}

void TwoLayerObjective::list_patterns(const double* preactivations, const double* output,
                                      double* output_velocity) {
  last_preactivations_ = preactivations;
  last_output_ = output;
  signed_weights_ = weights_.cwiseProduct(labels_);
  patterns_.set_weights(signed_weights_);
  const double work = 6.0 * static_cast<double>(panels_.size(examples()));
  team_.for_each(panels_.count(), work, nullptr, [&](Index panel) {
    const double* z = preactivations + panels_.offset(panel, padded_rows_);
    patterns_.see(panel, z);
    if (!trained_.output) return;
    with_panel_vectors(panels_.vectors(panel), [&](auto vectors) {
      output_velocity_of_rows<vectors>(z, signed_weights_,
                                       output_velocity + panels_.first_column(panel));
    });
  });
  if (!trained_.output) {
    std::fill(output_velocity, output_velocity + panels_.padded_width(), 0.0);
  }
  patterns_.list(output);
}

void TwoLayerObjective::backpropagate(double* backpropagated) {
  const double work = 4.0 * static_cast<double>(panels_.size(examples()));
  team_.for_each(panels_.count(), work, nullptr, [&](Index panel) {
    const Index stride = panels_.vectors(panel) * kLanes;
    const double* z = last_preactivations_ + panels_.offset(panel, padded_rows_);
    double* g = backpropagated + panels_.offset(panel, padded_rows_);
    with_panel_vectors(panels_.vectors(panel), [&](auto vectors) {
      backpropagate_rows<vectors>(z, signed_weights_, last_output_ + panels_.first_column(panel),
                                  g);
    });
    if (kink_ramp_ > 0.0) {
      for (Index u = 0; u < stride; u += kLanes) {
        const Packet inverse = inverse_ramp(z + u, stride, examples(), kink_ramp_);
        smooth_kinks(z + u, stride, examples(), inverse, g + u);
      }
    }
    std::fill(g + examples() * stride, g + padded_rows_ * stride, 0.0);
  });
}

void TwoLayerObjective::multiply_patterns(const Strips& left, double* out) {
  patterns_.multiply(left, last_output_, out, team_, control_);
}

void TwoLayerObjective::multiply_backpropagated(const Strips& left, const double* backpropagated,
                                                double* out) {
  weighted_.clear();
  for (Index i = 0; i < examples(); ++i) {
    if (weights_[i] != 0.0) weighted_.push_back(i);
  }
  const std::vector<Index>& pushed = patterns_.pushed();
  const auto rows = static_cast<Index>(weighted_.size());
  const auto width = static_cast<Index>(pushed.size());
  // Copies are worth it where they leave no more than this.
  constexpr double kWorthCopying = 0.9;
  const double left_over = static_cast<double>(rows * block_count(width, kLanes) * kLanes) /
                           static_cast<double>(examples() * panels_.padded_width());
  if (left_over > kWorthCopying) {
    multiply(left, panels_, backpropagated, padded_rows_, out, team_, control_);
    return;
  }
  const Index out_rows = left.padded_rows();
  std::fill(out, out + panels_.size(out_rows), 0.0);
  if (rows == 0 || width == 0) return;
  const Panels kept(width);
  make_room(gathered_, panels_.size(padded_rows_));
  make_room(product_, panels_.size(out_rows));
  gather_columns(panels_, backpropagated, weighted_, padded_rows_, pushed, kept, gathered_.data());
  if (multiply(left, weighted_, kept, gathered_.data(), product_.data(), team_, control_)) {
    scatter_columns(kept, product_.data(), out_rows, panels_, pushed, out);
  }
}

std::vector<Index> TwoLayerObjective::unreachable() const {
  const Matrix preactivations = panels_.unpack(last_preactivations_, examples(), padded_rows_);
  const VectorView output(last_output_, panels_.width());
  std::vector<Index> found;
  for (Index i = 0; i < examples(); ++i) {
    const auto helpful = (output.array() * labels_[i] > 0.0).transpose();
    if (!(helpful && preactivations.row(i).array() > 0.0).any()) found.push_back(i);
  }
  return found;
}

PrimalObjective::PrimalObjective(const MatrixView& inputs, const VectorView& labels, Index width,
                                 MarginLoss loss, Trained trained, Team& team, Control* control)
    : TwoLayerObjective(labels, width, loss, trained, team, control),
      dim_(inputs.cols()),
      features_(first_indices(dim_ + 1)),
      neurons_(first_indices(width)) {
  const Matrix features = with_bias_feature(inputs);
  examples_by_row_ = Strips(features);
  examples_by_column_ = Strips(features.transpose());
  preactivations_ = large_vector(panels_.size(padded_rows_));
}

Index PrimalObjective::size() const {
  return panels_.size(examples_by_column_.padded_rows()) + panels_.padded_width();
}

double PrimalObjective::squared_norm(const Vector& theta) const {
  return reluflow::squared_norm(team_, theta);
}

double PrimalObjective::evaluate(const Vector& theta, Vector& velocity) {
  const Index rows = examples_by_column_.padded_rows();
  velocity.resize(size());
  const double* output = theta.data() + panels_.size(rows);
  outputs_.set_weights(output);
  multiply_weights(theta);
  const double log_loss = descend(output, velocity);
  if (list_resting_neurons()) remember_resting_neurons(theta);
  return log_loss;
}

double PrimalObjective::evaluate_ahead(const Vector& theta, double h, const Vector& direction,
                                       Vector& room, Vector& velocity, Team& team) {
  // Where neurons rest the point is needed, to see whether they do.
  if (!worth_streaming(examples_by_row_, panels_) || !resting_.empty()) {
    return Objective::evaluate_ahead(theta, h, direction, room, velocity, team);
  }
  const Index rows = examples_by_column_.padded_rows();
  velocity.resize(size());
  room.tail(panels_.padded_width()) =
      theta.tail(panels_.padded_width()) + h * direction.tail(panels_.padded_width());
  const double* output = room.data() + panels_.size(rows);
  outputs_.set_weights(output);
  const auto weights = [&](Index panel, double* numbers) {
    const Index begin = panels_.offset(panel, rows);
    const Index count = (dim_ + 1) * panels_.vectors(panel) * kLanes;
    Eigen::Map<Vector>(numbers, count) =
        theta.segment(begin, count) + h * direction.segment(begin, count);
  };
  multiply(examples_by_row_, panels_, std::cref(weights), preactivations_.data(), team_, control_,
           &outputs_, streamed_);
  const double log_loss = descend(output, velocity);
  if (list_resting_neurons()) {
    assign(team, room, 2, theta + h * direction);
    remember_resting_neurons(room);
  }
  return log_loss;
}

double PrimalObjective::descend(const double* output, Vector& velocity) {
  const Index rows = examples_by_column_.padded_rows();
  const double log_loss = evaluate_margins();
  list_patterns(preactivations_.data(), output, velocity.data() + panels_.size(rows));
  if (multiplies_patterns()) {
    multiply_patterns(examples_by_column_, velocity.data());
  } else {
    make_room(backpropagated_, panels_.size(padded_rows_));
    backpropagate(backpropagated_.data());
    multiply_backpropagated(examples_by_column_, backpropagated_.data(), velocity.data());
  }
  if (!trained_.bias) panels_.clear_row(dim_, rows, velocity.data());
  return log_loss;
}

void PrimalObjective::multiply_weights(const Vector& theta) {
  const Index rows = examples_by_column_.padded_rows();
  if (resting_.empty() || resting_neurons_moved(theta)) {
    multiply(examples_by_row_, panels_, theta.data(), rows, preactivations_.data(), team_, control_,
             &outputs_);
    return;
  }
  const Panels awake(static_cast<Index>(awake_.size()));
  make_room(awake_weights_, panels_.size(dim_ + 1));
  make_room(awake_preactivations_, panels_.size(padded_rows_));
  gather_columns(panels_, theta.data(), features_, rows, awake_, awake, awake_weights_.data());
  if (!multiply(examples_by_row_, awake, awake_weights_.data(), dim_ + 1,
                awake_preactivations_.data(), team_, control_)) {
    return;
  }
  scatter_columns(awake, awake_preactivations_.data(), padded_rows_, panels_, awake_,
                  preactivations_.data());
  show_preactivations(preactivations_.data());
}

bool PrimalObjective::resting_neurons_moved(const Vector& theta) const {
  const Index rows = examples_by_column_.padded_rows();
  const double* remembered = resting_columns_.data();
  for (const Index j : resting_) {
    const Lane lane = panels_.lane(j, rows);
    for (Index i = 0; i <= dim_; ++i) {
      if (theta[lane.offset + i * lane.stride] != *remembered++) return true;
    }
  }
  return false;
}

bool PrimalObjective::list_resting_neurons() {
  resting_.clear();
  // Fewer awake neurons, but as many vectors of them: nothing would be saved.
  const auto awake = static_cast<Index>(patterns_.active().size());
  if (awake == 0 || Panels(awake).padded_width() == panels_.padded_width() ||
      (control_ && control_->reason() != StopReason::none)) {
    return false;
  }
  awake_ = patterns_.active();
  std::set_difference(neurons_.begin(), neurons_.end(), awake_.begin(), awake_.end(),
                      std::back_inserter(resting_));
  return true;
}

void PrimalObjective::remember_resting_neurons(const Vector& theta) {
  make_room(resting_columns_, static_cast<Index>(resting_.size()) * (dim_ + 1));
  const Index rows = examples_by_column_.padded_rows();
  double* remembered = resting_columns_.data();
  for (const Index j : resting_) {
    const Lane lane = panels_.lane(j, rows);
    for (Index i = 0; i <= dim_; ++i) *remembered++ = theta[lane.offset + i * lane.stride];
  }
}

Vector PrimalObjective::pack(const Network& network) const {
  const Index rows = examples_by_column_.padded_rows();
  Matrix columns(examples_by_column_.rows(), panels_.width());
  columns.topRows(dim_) = network.weights.transpose();
  columns.bottomRows(1) = network.bias.transpose();
  Vector theta = large_vector(size());
  panels_.pack(columns, rows, theta.data());
  panels_.pack(network.output.transpose(), 1, theta.data() + panels_.size(rows));
  return theta;
}

Network PrimalObjective::unpack(const Vector& theta) const {
  const Index rows = examples_by_column_.padded_rows();
  const Matrix columns = panels_.unpack(theta.data(), examples_by_column_.rows(), rows);
  return {columns.topRows(dim_).transpose(), columns.bottomRows(1).transpose(),
          panels_.unpack(theta.data() + panels_.size(rows), 1, 1).transpose()};
}

GramObjective::GramObjective(const MatrixView& inputs, const VectorView& labels,
                             const MatrixView& gram, const Network& initial, MarginLoss loss,
                             Trained trained, Team& team, Control* control)
    : TwoLayerObjective(labels, initial.output.size(), loss, trained, team, control),
      inputs_(inputs),
      initial_(initial),
      initial_squared_norm_(initial.weights.squaredNorm() + initial.bias.squaredNorm()) {
  gram_ =
      gram.rows() > 0 ? Strips(gram) : Strips(gram_matrix(inputs_, trained_.bias, team_, control_));
  Matrix preactivations = Matrix::Zero(examples(), panels_.width());
  multiply(inputs_, initial_.weights.transpose(), preactivations, team_, control_);
  preactivations.rowwise() += initial_.bias.transpose();
  initial_preactivations_.resize(block());
  panels_.pack(preactivations, padded_rows_, initial_preactivations_.data());
}

Index GramObjective::size() const { return 2 * block() + panels_.padded_width(); }

Vector GramObjective::start() const {
  Vector theta = large_vector(size());
  theta.setZero();
  theta.segment(block(), block()) = initial_preactivations_;
  theta.tail(panels_.padded_width()).head(panels_.width()) = initial_.output;
  return theta;
}

double GramObjective::evaluate(const Vector& theta, Vector& velocity) {
  velocity.resize(size());
  const double* preactivations = theta.data() + block();
  const double* output = theta.data() + 2 * block();
  outputs_.set_weights(output);
  show_preactivations(preactivations);
  const double log_loss = evaluate_margins();
  list_patterns(preactivations, output, velocity.data() + 2 * block());
  backpropagate(velocity.data());
  if (multiplies_patterns()) {
    multiply_patterns(gram_, velocity.data() + block());
  } else {
    multiply_backpropagated(gram_, velocity.data(), velocity.data() + block());
  }
  return log_loss;
}

double GramObjective::squared_norm(const Vector& theta) const {
  // ||w~0 + X~^T a||^2 = ||w~0||^2 + a . (z0 + z), because z = z0 + K a.
  return initial_squared_norm_ +
         dot(team_, theta.head(block()),
             theta.segment(block(), block()) + initial_preactivations_) +
         theta.tail(panels_.padded_width()).squaredNorm();
}

Network GramObjective::unpack_difference(const Vector& difference) const {
  const Matrix coefficients = panels_.unpack(difference.data(), examples(), padded_rows_);
  Network moved{Matrix(panels_.width(), inputs_.cols()), Vector::Zero(panels_.width()),
                difference.tail(panels_.padded_width()).head(panels_.width())};
  multiply(coefficients.transpose(), inputs_, moved.weights, team_);
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
                             const VectorView& labels, MarginLoss loss, Trained trained,
                             double kink_ramp, int num_threads) {
  LossGradient gradient;
  Team::run(num_threads, [&](Team& team) {
    PrimalObjective objective(inputs, labels, network.output.size(), loss, trained, team, nullptr);
    objective.set_kink_ramp(kink_ramp);
    Vector velocity;
    gradient.log_loss = objective.evaluate(objective.pack(network), velocity);
    gradient.margins = objective.margins();
    gradient.example_weights = objective.weights();
    gradient.velocity = objective.unpack(velocity);
  });
  return gradient;
}

LossGradient gram_gradient(const Network& network, const MatrixView& inputs,
                           const VectorView& labels, MarginLoss loss, Trained trained,
                           double kink_ramp, int num_threads) {
  LossGradient gradient;
  Team::run(num_threads, [&](Team& team) {
    const MatrixView unknown(nullptr, 0, 0);
    GramObjective objective(inputs, labels, unknown, network, loss, trained, team, nullptr);
    objective.set_kink_ramp(kink_ramp);
    Vector velocity;
    gradient.log_loss = objective.evaluate(objective.start(), velocity);
    gradient.margins = objective.margins();
    gradient.example_weights = objective.weights();
    gradient.velocity = objective.unpack_difference(velocity);
  });
  return gradient;
}

}  // namespace reluflow
