#include "arrays.hpp"
#include "reluflow/random.hpp"
#include "reluflow/sampling.hpp"

namespace reluflow::bindings {
namespace {

using WordArray = py::array_t<std::uint32_t, py::array::c_style>;

struct BoundCounts {
  ErrorCounts counts;
  bool interrupted;
};

WordArray bound_philox(const WordArray& counters, std::uint64_t key) {
  const Index n = counters.shape(0);
  WordArray words({n, Index{4}});
  const auto from = counters.unchecked<2>();
  auto to = words.mutable_unchecked<2>();
  for (Index begin = 0; begin < n; begin += kRandomLanes) {
    const Index size = std::min(kRandomLanes, n - begin);
    PhiloxLanes lanes = {};
    for (Index w = 0; w < 4; ++w) {
      for (Index i = 0; i < size; ++i) lanes.word[w][i] = from(begin + i, w);
    }
    philox4x32(key, lanes);
    for (Index w = 0; w < 4; ++w) {
      for (Index i = 0; i < size; ++i) {
        to(begin + i, w) = static_cast<std::uint32_t>(lanes.word[w][i]);
      }
    }
  }
  return words;
}

template <void (*fill)(const DrawStream&, double*, Index), DrawPurpose purpose>
Array bound_draws(std::uint64_t key, std::uint64_t block, Index count) {
  Array draws(count);
  double* out = draws.mutable_data();
  const py::gil_scoped_release unlocked;
  fill({key, block, purpose}, out, count);
  return draws;
}

BoundCounts bound_count_errors(const Array& offsets, const Array& factors, const Array& scales,
                               const Array& output, const Array& labels, std::uint64_t key,
                               std::uint64_t first_block, Index blocks, bool strict,
                               double max_seconds, int num_threads) {
  const ClusterActivations clusters{
      matrix(offsets),
      {factors.data(), factors.shape(0) * factors.shape(1), factors.shape(2)},
      vector(scales),
      vector(output),
      vector(labels)};
  const py::gil_scoped_release unlocked;
  Control control(max_seconds, &interrupted);
  ErrorCounts counts =
      count_errors(clusters, key, first_block, blocks, strict, num_threads, &control);
  return {std::move(counts), control.reason() == StopReason::interrupted};
}

}  // namespace

void bind_sampling(py::module_& module) {
  module.attr("SAMPLE_BLOCK") = kSampleBlock;

  py::class_<BoundCounts>(module, "ErrorCounts", py::module_local())
      .def_property_readonly("draws", [](const BoundCounts& c) { return to_array(c.counts.draws); })
      .def_property_readonly("errors",
                             [](const BoundCounts& c) { return to_array(c.counts.errors); })
      .def_property_readonly("blocks", [](const BoundCounts& c) { return c.counts.blocks; })
      .def_readonly("interrupted", &BoundCounts::interrupted);

  module.def("philox4x32", &bound_philox, py::arg("counters"), py::arg("key"));
  module.def("uniforms", &bound_draws<&fill_uniforms, DrawPurpose::clusters>, py::arg("key"),
             py::arg("block"), py::arg("count"));
  module.def("standard_normals", &bound_draws<&fill_normals, DrawPurpose::normals>, py::arg("key"),
             py::arg("block"), py::arg("count"));
  module.def("count_errors", &bound_count_errors, py::arg("offsets"), py::arg("factors"),
             py::arg("scales"), py::arg("output"), py::arg("labels"), py::arg("key"),
             py::arg("first_block"), py::arg("blocks"), py::arg("strict"), py::arg("max_seconds"),
             py::arg("num_threads"));
}

}  // namespace reluflow::bindings
