#include "reluflow/two_layer.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <numeric>

#include "reluflow/memory.hpp"
#include "reluflow/parallel.hpp"
#include "reluflow/products.hpp"
#include "reluflow/vectors.hpp"

namespace reluflow {
namespace {

using Eigen::internal::padd;
using Eigen::internal::pand;
using Eigen::internal::pcmp_eq;
using Eigen::internal::pcmp_lt;
using Eigen::internal::pdiv;
using Eigen::internal::ploadu;
using Eigen::internal::pmadd;
using Eigen::internal::pmax;
using Eigen::internal::pmin;
using Eigen::internal::pmul;
using Eigen::internal::por;
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

/// An integer that names an example: sums of them over sets of examples, exact up to 2^53, tell
/// most different sets apart. The output of SplitMix64 (Steele, Lea & Flood 2014), cut to 36 bits.
double key_of(Index example) {
  std::uint64_t bits = 0x9e3779b97f4a7c15u * (static_cast<std::uint64_t>(example) + 1);
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>(((bits ^ (bits >> 31)) >> 28) + 1);
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

/// A panel of neurons, all examples: g = [z > 0] weight v, and dv = sum weight relu(z). Bits of
/// `lit` are 0 where no example is active; `pattern` is the sum of the keys of the active examples
/// that have a weight.
template <int V>
void backpropagate_panel(const double* z, const Vector& signed_weights, const Vector& keys,
                         const double* output, double* g, double* output_velocity, double* lit,
                         double* pattern) {
  constexpr Index kRow = V * kLanes;
  const Packet zero = pset1<Packet>(0.0);
  Packet v[V], dv[V], any[V], sum[V];
#pragma GCC unroll 8
  for (int u = 0; u < V; ++u) {
    v[u] = ploadu<Packet>(output + u * kLanes);
    dv[u] = any[u] = sum[u] = zero;
  }
  for (Index i = 0; i < signed_weights.size(); ++i) {
    const Packet weight = pset1<Packet>(signed_weights[i]);
    const Packet key = pset1<Packet>(signed_weights[i] != 0.0 ? keys[i] : 0.0);
#pragma GCC unroll 8
    for (int u = 0; u < V; ++u) {
      const Packet preactivation = ploadu<Packet>(z + i * kRow + u * kLanes);
      const Packet active = pcmp_lt(zero, preactivation);
      dv[u] = pmadd(weight, pmax(preactivation, zero), dv[u]);
      pstoreu(g + i * kRow + u * kLanes, pand(active, pmul(weight, v[u])));
      any[u] = por(any[u], active);
      sum[u] = padd(sum[u], pand(active, key));
    }
  }
#pragma GCC unroll 8
  for (int u = 0; u < V; ++u) {
    pstoreu(output_velocity + u * kLanes, dv[u]);
    pstoreu(lit + u * kLanes, any[u]);
    // A neuron with output weight 0 is not pushed.
    pstoreu(pattern + u * kLanes, pselect(pcmp_eq(v[u], zero), zero, sum[u]));
  }
}

/// Whether any bit is set; of the numbers of a comparison, those that are true.
bool any_bit(double number) {
  std::uint64_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits != 0;
}

void list_with_any_bit(const Vector& numbers, Index count, std::vector<Index>& found) {
  found.clear();
  for (Index j = 0; j < count; ++j) {
    if (any_bit(numbers[j])) found.push_back(j);
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
      keys_(labels.size()),
      patterns_(panels_.padded_width()),
      lit_(panels_.padded_width()) {
  for (Index i = 0; i < keys_.size(); ++i) keys_[i] = key_of(i);
  weighted_.reserve(static_cast<std::size_t>(examples()));
  for (auto* neurons : {&pushed_, &active_, &leaders_}) {
    neurons->reserve(static_cast<std::size_t>(width));
  }
  followers_.reserve(static_cast<std::size_t>(width));
  slots_.resize(2 * static_cast<std::size_t>(width));
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

void TwoLayerObjective::backpropagate(const double* preactivations, const double* output,
                                      double* backpropagated, double* output_velocity) {
  last_preactivations_ = preactivations;
  last_output_ = output;
  signed_weights_ = weights_.cwiseProduct(labels_);
  const double work = 4.0 * static_cast<double>(panels_.size(examples()));
  team_.for_each(panels_.count(), work, nullptr, [&](Index panel) {
    const Index stride = panels_.vectors(panel) * kLanes;
    const Index first = panels_.first_column(panel);
    const double* z = preactivations + panels_.offset(panel, padded_rows_);
    double* g = backpropagated + panels_.offset(panel, padded_rows_);
    with_panel_vectors(panels_.vectors(panel), [&](auto vectors) {
      backpropagate_panel<vectors>(z, signed_weights_, keys_, output + first, g,
                                   output_velocity + first, lit_.data() + first,
                                   patterns_.data() + first);
    });
    if (kink_ramp_ > 0.0) {
      for (Index u = 0; u < stride; u += kLanes) {
        smooth_kinks(z + u, stride, examples(), inverse_ramp(z + u, stride, examples(), kink_ramp_),
                     g + u);
      }
    }
    std::fill(g + examples() * stride, g + padded_rows_ * stride, 0.0);
  });
  if (!trained_.output) {
    std::fill(output_velocity, output_velocity + panels_.padded_width(), 0.0);
  }
  list_pushed();
}

void TwoLayerObjective::list_pushed() {
  weighted_.clear();
  for (Index i = 0; i < examples(); ++i) {
    if (weights_[i] != 0.0) weighted_.push_back(i);
  }
  list_with_any_bit(patterns_, panels_.width(), pushed_);
  list_with_any_bit(lit_, panels_.width(), active_);
}

void TwoLayerObjective::list_leaders(const double* backpropagated, const double* output) {
  followers_.clear();
  if (kink_ramp_ > 0.0) {  // then columns differ by more than their output weight
    leaders_ = pushed_;
    return;
  }
  leaders_.clear();
  std::fill(slots_.begin(), slots_.end(), kNobody);
  for (const Index j : pushed_) {
    Index& leader = slot(patterns_[j]);
    if (leader == kNobody) leader = j;
    if (leader != j && same_pattern(backpropagated, leader, j)) {
      followers_.push_back({j, leader, output[j] / output[leader]});
    } else {
      leaders_.push_back(j);
    }
  }
}

Index& TwoLayerObjective::slot(double pattern) {
  std::uint64_t bits;
  std::memcpy(&bits, &pattern, sizeof bits);
  // Multiplicative hashing and linear probing (Knuth 1998, section 6.4).
  std::size_t place = (bits * 0x9e3779b97f4a7c15u) >> 32;
  for (;; ++place) {
    Index& found = slots_[place % slots_.size()];
    if (found == kNobody || patterns_[found] == pattern) return found;
  }
}

bool TwoLayerObjective::same_pattern(const double* backpropagated, Index j, Index l) const {
  if (patterns_[j] != patterns_[l]) return false;
  const Lane a = panels_.lane(j, padded_rows_), b = panels_.lane(l, padded_rows_);
  return std::all_of(weighted_.begin(), weighted_.end(), [&](Index i) {
    return (backpropagated[a.offset + i * a.stride] != 0.0) ==
           (backpropagated[b.offset + i * b.stride] != 0.0);
  });
}

void TwoLayerObjective::multiply_backpropagated(const Strips& left, const double* backpropagated,
                                                const double* output, double* out) {
  // Copies are worth it where they save some of the work. Whether neurons follow others is decided
  // among the pushed ones alone, so that the rest has no influence on the bits of the result.
  constexpr double kWorthCopying = 0.9;
  list_leaders(backpropagated, output);
  if (static_cast<double>(leaders_.size()) > kWorthCopying * static_cast<double>(pushed_.size())) {
    leaders_ = pushed_;
    followers_.clear();
  }
  const auto rows = static_cast<Index>(weighted_.size());
  const auto width = static_cast<Index>(leaders_.size());
  const double left_over = static_cast<double>(rows * block_count(width, kLanes) * kLanes) /
                           static_cast<double>(examples() * panels_.padded_width());
  if (left_over > kWorthCopying && followers_.empty()) {
    multiply(left, panels_, backpropagated, padded_rows_, out, team_, control_);
    return;
  }
  const Index out_rows = left.padded_rows();
  if (width < panels_.width()) std::fill(out, out + panels_.size(out_rows), 0.0);
  if (rows == 0 || width == 0) return;
  const Panels leaders(width);
  make_room(gathered_, panels_.size(padded_rows_));
  gather_columns(panels_, backpropagated, weighted_, padded_rows_, leaders_, leaders,
                 gathered_.data());
  if (width == panels_.width()) {
    multiply(left, weighted_, leaders, gathered_.data(), out, team_, control_);
    return;
  }
  make_room(product_, panels_.size(out_rows));
  if (!multiply(left, weighted_, leaders, gathered_.data(), product_.data(), team_, control_)) {
    return;
  }
  scatter_columns(leaders, product_.data(), out_rows, panels_, leaders_, out);
  const auto count = static_cast<Index>(followers_.size());
  const double work = 2 * kOperationsPerNumber * static_cast<double>(count * out_rows);
  team_.for_each(count, work, nullptr, [&](Index f) {
    const auto& [neuron, leader, factor] = followers_[static_cast<std::size_t>(f)];
    const Lane from = panels_.lane(leader, out_rows), to = panels_.lane(neuron, out_rows);
    for (Index i = 0; i < out_rows; ++i) {
      out[to.offset + i * to.stride] = factor * out[from.offset + i * from.stride];
    }
  });
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
  backpropagated_ = large_vector(panels_.size(padded_rows_));
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
  const double log_loss = evaluate_margins();
  backpropagate(preactivations_.data(), output, backpropagated_.data(),
                velocity.data() + panels_.size(rows));
  multiply_backpropagated(examples_by_column_, backpropagated_.data(), output, velocity.data());
  if (!trained_.bias) panels_.clear_row(dim_, rows, velocity.data());
  remember_resting_neurons(theta);
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

void PrimalObjective::remember_resting_neurons(const Vector& theta) {
  resting_.clear();
  // Fewer awake neurons, but as many vectors of them: nothing would be saved.
  const auto awake = static_cast<Index>(active_.size());
  if (awake == 0 || Panels(awake).padded_width() == panels_.padded_width() ||
      (control_ && control_->reason() != StopReason::none)) {
    return;
  }
  awake_ = active_;
  std::set_difference(neurons_.begin(), neurons_.end(), awake_.begin(), awake_.end(),
                      std::back_inserter(resting_));
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
  backpropagate(preactivations, output, velocity.data(), velocity.data() + 2 * block());
  multiply_backpropagated(gram_, velocity.data(), output, velocity.data() + block());
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
