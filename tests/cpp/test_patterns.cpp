#include <cmath>

#include "check.hpp"
#include "reluflow/patterns.hpp"

using namespace reluflow;

namespace {

// A layer with examples on both sides of every kink; `left` has as many columns as examples.
struct Layer {
  Layer(Index rows, Index examples, Index width)
      : left(rows, examples), preactivations(examples, width), weights(examples), output(width) {
    for (Index i = 0; i < left.size(); ++i) left.data()[i] = std::cos(11.0 * i + 3);
    for (Index i = 0; i < preactivations.size(); ++i) {
      preactivations.data()[i] = std::sin(7.0 * i * i + 1);
    }
    for (Index i = 0; i < examples; ++i) weights[i] = std::exp(-0.1 * i) * (i % 2 == 0 ? 1 : -1);
    for (Index j = 0; j < width; ++j) output[j] = j % 3 == 0 ? -0.5 : 0.2 + 0.01 * j;
  }

  Matrix left;
  Matrix preactivations;
  Vector weights;
  Vector output;
};

// What the class computes, unpacked.
struct Sums {
  Matrix product;
  std::vector<Index> pushed;
  std::vector<Index> active;
};

Vector padded(const Vector& numbers, Index size) {
  Vector made = Vector::Zero(size);
  made.head(numbers.size()) = numbers;
  return made;
}

// The patterns of a layer and what their class refers to.
class PatternsOf {
 public:
  explicit PatternsOf(const Layer& layer)
      : panels_(layer.output.size()),
        output_(padded(layer.output, panels_.padded_width())),
        patterns_(panels_, layer.weights.size()) {
    const Index examples = layer.weights.size();
    Vector z(panels_.size(examples));
    panels_.pack(layer.preactivations, examples, z.data());
    patterns_.set_weights(layer.weights);
    for (Index panel = 0; panel < panels_.count(); ++panel) {
      patterns_.see(panel, z.data() + panels_.offset(panel, examples));
    }
    patterns_.list(output_.data());
  }

  bool quicker_than_dense() const { return patterns_.quicker_than_dense(); }

  Sums sums(const Matrix& left, int threads) {
    CHECK(quicker_than_dense());
    const Strips strips(left);
    Vector out(panels_.size(strips.padded_rows()));
    Team::run(threads, [&](Team& team) {
      CHECK(patterns_.multiply(strips, output_.data(), out.data(), team, nullptr));
    });
    return {panels_.unpack(out.data(), left.rows(), strips.padded_rows()), patterns_.pushed(),
            patterns_.active()};
  }

 private:
  Panels panels_;
  Vector output_;
  ActivationPatterns patterns_;
};

Sums sums_of(const Layer& layer, int threads) {
  return PatternsOf(layer).sums(layer.left, threads);
}

// v_j sum_i left_ki weight_i [z_ij > 0] by its definition; the error of a sum of n terms of size 1
// is below n eps.
void check_product(const Layer& layer) {
  const Matrix product = sums_of(layer, 1).product;
  const double bound = 1e-15 * static_cast<double>(layer.left.cols());
  for (Index k = 0; k < product.rows(); ++k) {
    for (Index j = 0; j < product.cols(); ++j) {
      double sum = 0.0;
      for (Index i = 0; i < layer.left.cols(); ++i) {
        if (layer.preactivations(i, j) > 0.0) sum += layer.left(k, i) * layer.weights[i];
      }
      CHECK(std::abs(product(k, j) - layer.output[j] * sum) <= bound);
    }
  }
}

bool same(const Matrix& a, const Matrix& b) { return (a.array() == b.array()).all(); }

}  // namespace

TEST_CASE(sums_over_patterns_are_products) {
  // Groups of three to five; strips, groups and panels that are full, and that are not.
  for (const Index width : {30, 53, 211}) {
    for (const Index examples : {1, 4, 5, 37, 140}) {
      for (const Index rows : {1, 8, 13}) check_product(Layer(rows, examples, width));
    }
  }
}

TEST_CASE(sums_over_patterns_do_not_depend_on_threads) {
  const Layer layer(301, 150, 200);
  const Matrix product = sums_of(layer, 1).product;
  for (const int threads : {2, 3}) CHECK(same(sums_of(layer, threads).product, product));
}

TEST_CASE(examples_without_weight_leave_no_trace_in_sums_over_patterns) {
  Layer layer(9, 97, 60);
  for (Index i = 0; i < 97; ++i) {
    if (i % 7 < 4 || (i > 20 && i < 60)) layer.weights[i] = 0.0;
  }
  Layer other = layer;
  for (Index i = 0; i < 97; ++i) {
    if (layer.weights[i] == 0.0) other.preactivations.row(i).setConstant(-1.0);
  }
  check_product(layer);
  CHECK(same(sums_of(layer, 1).product, sums_of(other, 1).product));
}

TEST_CASE(neurons_of_one_pattern_have_sums_of_one_direction) {
  Layer layer(9, 31, 50);
  for (Index j = 10; j < 50; ++j) {
    layer.preactivations.col(j) = layer.preactivations.col(j % 10) * (1.0 + j);
  }
  const Matrix product = sums_of(layer, 1).product;
  for (Index j = 10; j < 50; ++j) {
    layer.output[j] = layer.output[j % 10];
  }
  const Matrix alike = sums_of(layer, 1).product;
  for (Index j = 10; j < 50; ++j) CHECK(same(alike.col(j), product.col(j % 10)));
}

TEST_CASE(neurons_that_do_not_move_are_told) {
  Layer layer(3, 20, 45);
  layer.output[4] = 0.0;                          // not pushed, whatever is active
  layer.preactivations.col(7).setConstant(-1.0);  // active nowhere
  layer.preactivations.col(8).setConstant(-1.0);  // active where nothing has a weight
  layer.preactivations(19, 8) = 1.0;
  layer.weights[19] = 0.0;
  const Sums sums = sums_of(layer, 1);
  std::vector<Index> pushed, active;
  for (Index j = 0; j < 45; ++j) {
    if (j != 7) active.push_back(j);
    if (j != 4 && j != 7 && j != 8) pushed.push_back(j);
  }
  CHECK(sums.active == active);
  CHECK(sums.pushed == pushed);
  for (const Index j : {4, 7, 8}) CHECK((sums.product.col(j).array() == 0.0).all());
}

TEST_CASE(tables_are_for_layers_where_they_pay) {
  const Index examples = 60;
  const auto quicker = [&](Index width, Index kinds, double weight) {
    Layer layer(1, examples, width);
    for (Index j = 0; j < width; ++j) {
      layer.preactivations.col(j) = layer.preactivations.col(j % kinds).eval();
    }
    layer.weights *= weight;
    return PatternsOf(layer).quicker_than_dense();
  };
  CHECK(quicker(50, 50, 1.0));
  CHECK(!quicker(12, 12, 1.0));
  CHECK(quicker(20, 2, 1.0));    // two columns of sums for twenty neurons
  CHECK(!quicker(50, 50, 0.0));  // nobody moves
}
