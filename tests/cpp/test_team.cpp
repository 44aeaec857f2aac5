#include <atomic>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "reluflow/team.hpp"

using namespace reluflow;

TEST_CASE(every_iteration_runs_once_in_every_loop) {
  for (const int threads : {1, 2, 3, 5}) {
    Team::run(threads, [](Team& team) {
      for (Index loop = 0; loop < 3000; ++loop) {
        const Index count = 1 + loop % 17;
        std::vector<int> runs(static_cast<std::size_t>(count), 0);
        CHECK(team.for_each(count, 1e9, nullptr,
                            [&](Index i) { ++runs[static_cast<std::size_t>(i)]; }));
        for (const int times : runs) CHECK(times == 1);
      }
    });
  }
}

TEST_CASE(every_thread_has_a_seat_of_its_own) {
  for (const int threads : {1, 2, 3}) {
    Team::run(threads, [&](Team& team) {
      std::vector<std::atomic<int>> taken(static_cast<std::size_t>(threads));
      team.for_each(1000, 1e9, nullptr, [&](Index) {
        std::atomic<int>& seat = taken.at(static_cast<std::size_t>(team.seat()));
        CHECK(seat++ == 0);
        --seat;
      });
    });
  }
}

#ifdef _OPENMP
TEST_CASE(teams_of_one_have_one_seat_whatever_thread_they_work_on) {
#pragma omp parallel num_threads(3)
  {
    const Team team;
#pragma omp critical
    CHECK(team.seat() == 0);
  }
}
#endif

TEST_CASE(an_exception_ends_the_loop_and_leaves_the_team_usable) {
  Team::run(3, [](Team& team) {
    bool caught = false;
    try {
      team.for_each(100, 1e9, nullptr, [](Index i) {
        if (i == 7) throw std::runtime_error("seven");
      });
    } catch (const std::runtime_error&) {
      caught = true;
    }
    CHECK(caught);
    std::atomic<int> runs{0};
    CHECK(team.for_each(50, 1e9, nullptr, [&](Index) { ++runs; }));
    CHECK(runs == 50);
  });
}

TEST_CASE(an_exception_outside_a_loop_reaches_the_caller) {
  bool caught = false;
  try {
    Team::run(2, [](Team&) { throw std::runtime_error("outside"); });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  CHECK(caught);
}

TEST_CASE(a_loop_stops_when_asked) {
  Team::run(2, [](Team& team) {
    Control control(0.0);
    CHECK(!team.for_each(1000, 1e9, &control, [](Index) {}));
  });
}
