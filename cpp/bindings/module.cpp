#include "arrays.hpp"

PYBIND11_MODULE(RELUFLOW_MODULE, module) {
  using namespace reluflow::bindings;
  module.doc() = "Compiled kernels of reluflow for one instruction set.";
  bind_build(module);
  bind_network(module);
  bind_flow(module);
  bind_deep(module);
  bind_sampling(module);
  bind_perturbation(module);
  bind_adversarial(module);
}
