#include "reluflow/certificate.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace reluflow {
namespace {

constexpr int kMostRounds = 12;
// What the barrier may cost, as a multiple of the gap: much at first, where the ellipsoids are
// round and cut well, and less as the intervals shrink.
constexpr double kFirstLevel = 10.0;
constexpr double kLevelFactor = 0.7;
constexpr double kLastLevel = 3.0;
// Newton steps a round, and of a round without a start nearby.
constexpr int kSteps = 2;
constexpr int kFirstSteps = 12;
// Rounds that close less than this share of the gap are idle; so many idle ones end it.
constexpr double kWorthwhileGain = 0.05;
constexpr int kPatience = 2;

Vector centre_of(const PointProblem& problem, const Projection& projection) {
  return -projection.scale * (problem.neurons.rows.transpose() * projection.multipliers);
}

void note(ProofStep::Kind kind, const ShorMultipliers& multipliers, const Minorant& minorant,
          ProofTrail& trail) {
  trail.quadratic(kind, multipliers.eta, multipliers.supporting, multipliers.curvature,
                  minorant.slopes());
}

/// Multipliers for what is undecided now, from those of a larger problem.
ShorMultipliers restricted(const PointProblem& problem, const Intervals& intervals,
                           ShorMultipliers multipliers) {
  for (const Index j : problem.side.opposing) {
    if (!intervals.undecided(j)) multipliers.curvature[j] = 0.0;
  }
  return multipliers;
}

/// At the better of two starts.
ShorAscent started(const PointProblem& problem, const Intervals& intervals,
                   const ShorMultipliers& closed_form, const ShorMultipliers* other,
                   const Vector& z) {
  ShorAscent ascent(problem, intervals, closed_form, z);
  if (!other) return ascent;
  ShorAscent second(problem, intervals, restricted(problem, intervals, *other), z);
  return second.value() > ascent.value() ? second : ascent;
}

}  // namespace

double closed_form_bound(const PointProblem& problem, const Intervals& intervals,
                         const Projection& projection, double slack, double known,
                         ProofTrail& trail) {
  const ShorMultipliers multipliers =
      closed_form_multipliers(problem, intervals, Majorants::everywhere, projection);
  const Minorant minorant(problem, intervals, Majorants::everywhere, multipliers,
                          centre_of(problem, projection), slack);
  const double bound = minorant.lower_bound();
  if (bound > known) note(ProofStep::Kind::bound, multipliers, minorant, trail);
  return bound;
}

DualBound dual_bound(const PointProblem& problem, const Projection& projection,
                     const ShorMultipliers* start, double radius, double enough, double slack,
                     Intervals& intervals, ProofTrail& trail) {
  const Vector centre = centre_of(problem, projection);
  const Vector z = problem.preactivations + problem.neurons.rows * centre;
  DualBound result;
  const auto apply = [&](const Minorant& minorant, const ShorMultipliers& multipliers) {
    result.widest_gap = minorant.widest_gap();
    if (!minorant.convex()) return;
    result.lower_bound = std::max(result.lower_bound, minorant.lower_bound());
    note(ProofStep::Kind::ellipsoid, multipliers, minorant, trail);
    minorant.cut(radius, intervals);
  };
  double level = kFirstLevel;
  for (int round = 0, idle = 0; round < kMostRounds && idle < kPatience; ++round) {
    if (intervals.contradictory()) return {radius, -1, {0.0, {}, {}}};
    const double before = result.lower_bound;
    const ShorMultipliers closed_form =
        closed_form_multipliers(problem, intervals, Majorants::intervals, projection);
    const Minorant exact(problem, intervals, Majorants::intervals, closed_form, centre, slack);
    const bool decided = exact.widest_gap() < 0;
    if (decided || exact.lower_bound() > before) apply(exact, closed_form);
    if (decided || result.lower_bound >= enough) return result;
    ShorAscent ascent = started(problem, intervals, closed_form, start, z);
    ascent.climb(level, radius * radius, enough * enough, start ? kSteps : kFirstSteps);
    if (!(ascent.value() > 0.0)) return result;
    result.multipliers = ascent.multipliers();
    start = &result.multipliers;
    apply(Minorant(problem, intervals, Majorants::intervals, result.multipliers, ascent.centre(),
                   slack),
          result.multipliers);
    if (result.lower_bound >= enough) return result;
    const bool gained = result.lower_bound - before >= kWorthwhileGain * (radius - before);
    idle = gained ? 0 : idle + 1;
    level = std::max(kLastLevel, kLevelFactor * level);
  }
  return result;
}

}  // namespace reluflow
