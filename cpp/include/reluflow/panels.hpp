#pragma once

#include <Eigen/Core>
#include <functional>
#include <type_traits>
#include <vector>

#include "reluflow/control.hpp"
#include "reluflow/parallel.hpp"
#include "reluflow/team.hpp"
#include "reluflow/types.hpp"

namespace reluflow {

using Packet = Eigen::internal::packet_traits<double>::type;

/// Numbers in a SIMD vector.
inline constexpr int kLanes = Eigen::internal::packet_traits<double>::size;
/// A panel is at most so many SIMD vectors wide, and a strip so many rows high: a tile of one by
/// the other, its operands and a broadcast fill the registers.
inline constexpr int kPanelVectors = 3;
inline constexpr int kStripRows = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32 ? 8 : 4;

/// Calls call(V) with the number of SIMD vectors in a row of a panel as a constant of the compiler.
template <class Call>
void with_panel_vectors(int vectors, const Call& call) {
  switch (vectors) {
    case 1:
      return call(std::integral_constant<int, 1>());
    case 2:
      return call(std::integral_constant<int, 2>());
    default:
      return call(std::integral_constant<int, kPanelVectors>());
  }
}

/// Where one column of a panel matrix lies: its first entry, and the way to the next.
struct Lane {
  Index offset;
  Index stride;
};

/// How the neurons are cut into panels. A matrix with one column a neuron is kept panel by panel,
/// each panel row by row, so that the innermost loops read it in order; unused columns are zero.
class Panels {
 public:
  explicit Panels(Index width);

  Index width() const { return width_; }
  Index padded_width() const { return vectors_ * kLanes; }
  Index count() const { return count_; }
  /// SIMD vectors in a row of a panel.
  int vectors(Index panel) const {
    return static_cast<int>(first_vector(panel + 1) - first_vector(panel));
  }
  Index first_column(Index panel) const { return first_vector(panel) * kLanes; }
  /// Numbers in a panel matrix with so many rows, and where one of its panels begins.
  Index size(Index rows) const { return padded_width() * rows; }
  Index offset(Index panel, Index rows) const { return first_column(panel) * rows; }

  Lane lane(Index column, Index rows) const;

  /// Copies between `columns` (rows, width) and a panel matrix that has `rows` rows or more.
  void pack(const ConstMatrixRef& columns, Index rows, double* panels) const;
  Matrix unpack(const double* panels, Index used_rows, Index rows) const;
  void clear_row(Index row, Index rows, double* panels) const;

 private:
  /// Panels are as even as can be.
  Index first_vector(Index panel) const { return vectors_ * panel / count_; }

  Index width_;
  Index vectors_;
  Index count_;
};

/// Copies the given rows and columns of a panel matrix with `source_rows` rows into one that holds
/// nothing else, its unused columns zero.
void gather_columns(const Panels& from, const double* source, const std::vector<Index>& rows,
                    Index source_rows, const std::vector<Index>& columns, const Panels& to,
                    double* target);

/// Copies all columns of a panel matrix to the given columns of another one of as many rows.
void scatter_columns(const Panels& from, const double* source, Index rows, const Panels& to,
                     const std::vector<Index>& columns, double* target);

/// A matrix kept strip by strip of kStripRows rows, each strip column by column, for products from
/// the left with panel matrices; the last strip is filled up with zero rows.
class Strips {
 public:
  Strips() = default;
  explicit Strips(const ConstMatrixRef& matrix);

  Index rows() const { return rows_; }
  Index padded_rows() const { return count() * kStripRows; }
  Index columns() const { return columns_; }
  Index count() const { return (rows_ + kStripRows - 1) / kStripRows; }
  const double* strip(Index index) const { return data_.data() + index * kStripRows * columns_; }

 private:
  Index rows_ = 0;
  Index columns_ = 0;
  Vector data_;
};

/// Sees the tiles of a product as they are finished, while they are in the cache: in any order,
/// from any thread, each once.
class TileObserver {
 public:
  virtual ~TileObserver() = default;
  /// Rows of a panel, whole strips of them, which begin at `numbers`.
  virtual void see(Index panel, Block rows, const double* numbers) = 0;
};

/// Makes a panel of a product's right operand when it is needed, so that it goes from the cache to
/// the product and never to memory: panels in any order, from any thread, each once. What is given
/// by std::cref is not copied, which would allocate.
using PanelSource = std::function<void(Index panel, double* numbers)>;

/// Whether a product is faster from a PanelSource: its right operand is long, and its left one
/// short enough to be read again and again.
bool worth_streaming(const Strips& left, const Panels& panels);

/// right (at least left.columns() rows) -> out = left * right (left.padded_rows() rows), both panel
/// matrices. Every number is summed in one fixed order, whatever the number of threads. Returns
/// false when `control` asked to stop.
bool multiply(const Strips& left, const Panels& panels, const double* right, Index right_rows,
              double* out, Team& team, Control* control, TileObserver* observer = nullptr);

/// The same, bit by bit, with `right` (of left.columns() rows) made on the way; `room` is for the
/// panels that exist at a time.
bool multiply(const Strips& left, const Panels& panels, const PanelSource& right, double* out,
              Team& team, Control* control, TileObserver* observer, Vector& room);

/// The same with the given columns of left alone, one for each row of `right`.
bool multiply(const Strips& left, const std::vector<Index>& columns, const Panels& panels,
              const double* right, double* out, Team& team, Control* control);

}  // namespace reluflow
