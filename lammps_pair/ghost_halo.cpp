// SPDX-License-Identifier: GPL-2.0-only
#include "ghost_halo.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "atom.h"
#include "comm.h"
#include "pair.h"
#include "platform.h"

namespace LAMMPS_NS {

std::int64_t GhostHalo::n_padding() const { return lammps_->atom->nlocal == 0 ? 1 : 0; }

std::int64_t GhostHalo::n_local() const { return lammps_->atom->nlocal + n_padding(); }

std::int64_t GhostHalo::n_nodes() const { return n_local() + lammps_->atom->nghost; }

template <typename T, typename Exchange>
void GhostHalo::for_each_block(T *rows, std::int64_t width, Exchange exchange) {
  constexpr std::int64_t columns = block_doubles * sizeof(double) / sizeof(T);
  is_float_ = std::is_same_v<T, float>;
  stride_ = width * sizeof(T);
  const double start = platform::walltime();
  for (std::int64_t column = 0; column < width; column += columns) {
    block_ = reinterpret_cast<std::byte *>(rows + n_padding() * width + column);
    block_bytes_ = std::min(columns, width - column) * sizeof(T);
    message_doubles_ = static_cast<int>((block_bytes_ + sizeof(double) - 1) / sizeof(double));
    exchange();
  }
  seconds_ += platform::walltime() - start;
}

template <typename T>
void GhostHalo::send(T *rows, std::int64_t width) {
  for_each_block(rows, width, [this] { lammps_->comm->forward_comm(pair_, message_doubles_); });
}

template <typename T>
void GhostHalo::collect(T *rows, std::int64_t width) {
  for_each_block(rows, width, [this] { lammps_->comm->reverse_comm(pair_, message_doubles_); });
  std::fill(rows + n_local() * width, rows + n_nodes() * width, T(0));
}

void GhostHalo::forward(float *rows, std::int64_t width) { send(rows, width); }
void GhostHalo::forward(double *rows, std::int64_t width) { send(rows, width); }
void GhostHalo::reverse(float *rows, std::int64_t width) { collect(rows, width); }
void GhostHalo::reverse(double *rows, std::int64_t width) { collect(rows, width); }

int GhostHalo::pack_forward(int n_atoms, const int *atoms, double *buffer) const {
  for (int k = 0; k < n_atoms; ++k)
    std::memcpy(buffer + k * message_doubles_, block_ + atoms[k] * stride_, block_bytes_);
  return n_atoms * message_doubles_;
}

void GhostHalo::unpack_forward(int n_atoms, int first, const double *buffer) const {
  for (int k = 0; k < n_atoms; ++k)
    std::memcpy(block_ + (first + k) * stride_, buffer + k * message_doubles_, block_bytes_);
}

int GhostHalo::pack_reverse(int n_atoms, int first, double *buffer) const {
  for (int k = 0; k < n_atoms; ++k)
    std::memcpy(buffer + k * message_doubles_, block_ + (first + k) * stride_, block_bytes_);
  return n_atoms * message_doubles_;
}

template <typename T>
void GhostHalo::add(std::byte *row, const double *source, std::size_t n_bytes) {
  T values[block_doubles * sizeof(double) / sizeof(T)];
  std::memcpy(values, source, n_bytes);
  T *target = reinterpret_cast<T *>(row);
  for (std::size_t c = 0; c < n_bytes / sizeof(T); ++c) target[c] += values[c];
}

void GhostHalo::unpack_reverse(int n_atoms, const int *atoms, const double *buffer) const {
  const auto add_row = is_float_ ? &GhostHalo::add<float> : &GhostHalo::add<double>;
  for (int k = 0; k < n_atoms; ++k)
    add_row(block_ + atoms[k] * stride_, buffer + k * message_doubles_, block_bytes_);
}

}  // namespace LAMMPS_NS
