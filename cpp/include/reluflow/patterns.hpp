#pragma once

#include <cstdint>
#include <vector>

#include "reluflow/panels.hpp"

namespace reluflow {

/// Which examples every neuron of a ReLU layer is active on, and sums over them.
///
/// Backpropagated through one layer, the derivatives at neuron j are v_j weight_i where example i
/// is active and 0 elsewhere, so that a product with them multiplies by bits: sums over all subsets
/// of a few consecutive examples are tabulated, and a neuron adds up one entry of each table. That
/// takes a fraction of the operations of a dense product (the method of Arlazarov, Dinic, Kronrod &
/// Faradzhev 1970, "On economical construction of the transitive closure of a directed graph").
/// Examples without weight are left out, and neurons that are active on the same examples share
/// their sums, which changes no bit of the result.
class ActivationPatterns {
 public:
  ActivationPatterns(const Panels& panels, Index examples);

  /// Of the examples; those of weight 0 count no more.
  void set_weights(const Vector& weights);
  /// Takes in the pre-activations of a panel of neurons, one row an example.
  void see(Index panel, const double* preactivations);
  /// Once all panels were seen: which neurons move. `output` are their output weights v.
  void list(const double* output);

  /// Neurons that an example with a weight is active on, and whose output weight is not 0.
  const std::vector<Index>& pushed() const { return pushed_; }
  /// Neurons that any example is active on.
  const std::vector<Index>& active() const { return active_; }

  /// Whether multiply() is quicker than a dense product, and can be used. Neurons that are not
  /// pushed have no say in it, and so no influence on the bits of the result.
  bool quicker_than_dense() const { return group_size_ > 0; }
  /// out_kj = v_j sum_i left_ki weight_i [example i is active on neuron j], a panel matrix of
  /// left.padded_rows() rows. Every number is summed in one fixed order, whatever the number of
  /// threads. Returns false when `control` asked to stop.
  bool multiply(const Strips& left, const double* output, double* out, Team& team,
                Control* control);

 private:
  static constexpr Index kNobody = -1;

  const std::uint8_t* pattern(Index neuron) const { return bits_.data() + neuron * stride_; }
  bool is_empty(Index neuron) const;
  /// Where the first neuron of a pattern stands among the leaders, or is to be put.
  Index& slot(Index neuron);
  void choose_group_size();
  void list_groups();
  /// The numbers of a leader's subsets, group by group.
  void read_codes(Index leader);
  template <int Bits>
  bool multiply_with(const Strips& left, const double* output, double* out, Team& team,
                     Control* control);

  const Panels& panels_;
  Vector weights_;                  // of the examples, and zeros that fill up the last group
  Vector bit_values_;               // of the examples in their bytes; 0 without a weight
  Index stride_;                    // bytes of a neuron: whole words
  std::vector<std::uint8_t> bits_;  // (padded width, stride): a bit an example, then zeros
  Vector lit_;                      // of the neurons: bits that are 0 where no example is active
  std::vector<Index> pushed_;
  std::vector<Index> active_;
  std::vector<Index> leaders_;  // the first neurons of their patterns
  std::vector<Index> leader_;   // of every neuron: its place in leaders_, or kNobody
  std::vector<Index> slots_;    // hash table of places in leaders_, or kNobody
  int group_size_ = 0;          // examples a table; none where a dense product is quicker
  std::vector<Index> groups_;   // those with any weight
  Index codes_stride_;
  std::vector<std::uint8_t> codes_;  // of the leaders: an entry of every group's table
  Vector room_;
};

}  // namespace reluflow
