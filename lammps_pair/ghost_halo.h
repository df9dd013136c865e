// SPDX-License-Identifier: GPL-2.0-only
// mdplugin::HaloExchange on top of LAMMPS's forward and reverse communication of a pair style.
#pragma once
#include <cstddef>
#include <cstdint>

#include "halo.h"
#include "lammps.h"

namespace LAMMPS_NS {
class Pair;

/// Rows are the atoms of this rank, owned ones first, ghosts behind, in LAMMPS's order. A rank
/// without atoms has one row of its own in front that no other rank sees: networks are then never
/// asked for an empty result, which many operations of torch refuse.
class GhostHalo final : public mdplugin::HaloExchange {
 public:
  /// Doubles of one atom in one message: LAMMPS sizes its buffers by the pair style's
  /// comm_forward and comm_reverse, so wider rows travel in blocks.
  static constexpr int block_doubles = 64;

  GhostHalo(LAMMPS *lammps, Pair *pair) : lammps_(lammps), pair_(pair) {}

  /// 1 on a rank without atoms (see above), else 0.
  std::int64_t n_padding() const;
  std::int64_t n_local() const override;
  std::int64_t n_nodes() const override;
  void forward(float *rows, std::int64_t width) override;
  void forward(double *rows, std::int64_t width) override;
  void reverse(float *rows, std::int64_t width) override;
  void reverse(double *rows, std::int64_t width) override;

  /// Seconds spent in exchanges so far, waiting for other ranks included.
  double seconds() const { return seconds_; }

  // What the pair style's four callbacks of the same names do while an exchange runs.
  int pack_forward(int n_atoms, const int *atoms, double *buffer) const;
  void unpack_forward(int n_atoms, int first, const double *buffer) const;
  int pack_reverse(int n_atoms, int first, double *buffer) const;
  void unpack_reverse(int n_atoms, const int *atoms, const double *buffer) const;

 private:
  template <typename T>
  void send(T *rows, std::int64_t width);
  template <typename T>
  void collect(T *rows, std::int64_t width);
  template <typename T, typename Exchange>
  void for_each_block(T *rows, std::int64_t width, Exchange exchange);
  template <typename T>
  static void add(std::byte *row, const double *source, std::size_t n_bytes);

  LAMMPS *lammps_;
  Pair *pair_;
  double seconds_ = 0.0;

  // The block under way. Rows travel as bytes, so two floats share a double of LAMMPS's buffers.
  std::byte *block_ = nullptr;    // row of LAMMPS's atom 0, at the block's first column
  std::size_t stride_ = 0;        // bytes from row to row
  std::size_t block_bytes_ = 0;   // bytes of the block in a row
  int message_doubles_ = 0;       // the same in doubles, rounded up
  bool is_float_ = false;
};

}  // namespace LAMMPS_NS
