#include <cmath>

#include "check.hpp"
#include "reluflow/perturbation.hpp"

using namespace reluflow;

namespace {

// relu(2 - 4 t) - relu(4 t - 3): zero on [1/2, 3/4], negative behind.
struct Plateau {
  Vector preactivations = (Vector(2) << 2, -3).finished();
  Vector slopes = (Vector(2) << -4, 4).finished();
  Vector output = (Vector(2) << 1, -1).finished();
};

PerturbationOutcome solve(const Matrix& rows, const Vector& a, const Vector& v, Flip flip,
                          Index max_nodes) {
  const Index size = v.size();
  const double label = 1.0, slack = 0.0;
  const PointSet points{
      {a.data(), 1, size}, {&label, 1}, {&slack, 1}, {nullptr, 0, size}, {nullptr, 1, 0}};
  const PerturbationOptions options{flip, 1e-6, max_nodes, 1};
  Control control;
  return min_perturbations({rows.data(), size, rows.cols()}, {v.data(), size}, 0.0,
                           v.cwiseAbs().dot(rows.rowwise().norm()), points, options, control);
}

}  // namespace

TEST_CASE(a_plateau_flips_where_it_begins_or_where_it_ends) {
  const Plateau p;
  const Ray ray{p.preactivations, p.slopes, p.output, 0.0};
  CHECK(first_crossing(ray, Flip::nonstrict) == 0.5);
  CHECK(first_crossing(ray, Flip::strict) == 0.75);
}

// N = relu(z_1) - relu(z_2) with orthonormal rows and a = (1, -B): radius min(1, (1 + B)/sqrt 2).
// docs/theory.md, section 7.5.
TEST_CASE(two_neurons_by_hand) {
  const Matrix rows = Matrix::Identity(2, 2);
  const Vector v = (Vector(2) << 1, -1).finished();
  for (const double B : {0.0, 0.25, 0.4, 0.41, 0.5, 2.0}) {
    const Vector a = (Vector(2) << 1, -B).finished();
    const PerturbationOutcome found = solve(rows, a, v, Flip::nonstrict, 10);
    const double radius = std::min(1.0, (1.0 + B) / std::sqrt(2.0));
    CHECK(std::abs(found.radius[0] - radius) < 1e-14);
    CHECK(found.lower_bound[0] <= found.radius[0]);
    CHECK(found.proofs[0] != Proof::none);
  }
}

// Two orthogonal neurons with bias: dead at distance 1 - b of the first, N < 0 only where the
// second is above its kink at distance b as well. docs/theory.md, section 6.3.
TEST_CASE(strict_and_nonstrict_radii_differ_at_a_dead_zone) {
  const Matrix rows = Matrix::Identity(2, 2);
  const Vector v = (Vector(2) << 1, -1).finished(), a = (Vector(2) << 0.5, -0.5).finished();
  CHECK(std::abs(solve(rows, a, v, Flip::nonstrict, 10).radius[0] - 0.5) < 1e-14);
  CHECK(std::abs(solve(rows, a, v, Flip::strict, 10).radius[0] - std::sqrt(0.5)) < 1e-14);
}

TEST_CASE(a_network_of_one_sign_never_flips) {
  // relu(z) + relu(1 - z) >= 1.
  const Matrix rows = (Matrix(2, 1) << 1, -1).finished();
  const Vector v = Vector::Ones(2), a = (Vector(2) << 0.3, 0.7).finished();
  const PerturbationOutcome found = solve(rows, a, v, Flip::nonstrict, 10);
  CHECK(std::isinf(found.radius[0]) && std::isinf(found.lower_bound[0]));
  CHECK(found.proofs[0] == Proof::never_flips);
}
