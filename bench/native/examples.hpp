#pragma once

#include "reluflow/network.hpp"
#include "reluflow/types.hpp"

/// Normal examples with labels of both kinds, and a small network with weights of rms 1e-2/sqrt(d).
struct Examples {
  reluflow::Matrix inputs;
  reluflow::Vector labels;
  reluflow::Network network;

  reluflow::MatrixView x() const { return {inputs.data(), inputs.rows(), inputs.cols()}; }
  reluflow::VectorView y() const { return {labels.data(), labels.size()}; }
};

Examples random_examples(reluflow::Index n, reluflow::Index d, reluflow::Index m,
                         std::uint64_t seed);
