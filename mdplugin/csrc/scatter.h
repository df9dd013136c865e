// SPDX-License-Identifier: MIT
// Sums over edges into sender rows, from threads that own receivers: without atomics, and the same for any number of
// threads. Receivers are cut into blocks whose size depends on their number alone; every block adds into rows of its own,
// which are then added to the senders' in the order of the blocks. Blocks are taken in waves, so that the rows of a few
// are alive at a time, however the atoms are ordered.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mdplugin {

constexpr std::int64_t blocks_per_wave = 16;

/// Receivers of one block, by the number of all.
inline std::int64_t block_size(std::int64_t n_receivers) {
  return std::clamp<std::int64_t>((n_receivers + blocks_per_wave - 1) / blocks_per_wave, 16, 1024);
}

/// The blocks of one wave: the receivers [begin, end).
class SenderBlocks {
 public:
  /// Edges sorted by receiver, `offsets` (n_receivers + 1); `senders` (n_edges) below n_senders. Writes `slots` (n_edges)
  /// of its edges: the row of the edge's sender in the rows of its receiver's block.
  SenderBlocks(std::int64_t begin, std::int64_t end, std::int64_t size, const std::int64_t *offsets,
               const std::int64_t *senders, std::int64_t n_senders, std::int32_t *slots)
      : begin_(begin), end_(end), size_(size), senders_((end - begin + size - 1) / size) {
    at::parallel_for(0, count(), 1, [&](std::int64_t from, std::int64_t to) {
      std::vector<std::int32_t> slot_of(n_senders, -1);
      for (std::int64_t b = from; b < to; ++b) {
        auto &unique = senders_[b];
        for (std::int64_t e = offsets[first(b)]; e < offsets[last(b)]; ++e) {
          std::int32_t &slot = slot_of[senders[e]];
          if (slot < 0) {
            slot = std::int32_t(unique.size());
            unique.push_back(senders[e]);
          }
          slots[e] = slot;
        }
        for (const std::int64_t s : unique) slot_of[s] = -1;
      }
    });
    offsets_.assign(n_senders + 1, 0);
    for (const auto &unique : senders_)
      for (const std::int64_t s : unique) ++offsets_[s + 1];
    for (std::int64_t s = 0; s < n_senders; ++s) offsets_[s + 1] += offsets_[s];
  }

  std::int64_t count() const { return std::int64_t(senders_.size()); }
  std::int64_t first(std::int64_t block) const { return begin_ + block * size_; }
  std::int64_t last(std::int64_t block) const { return std::min(end_, begin_ + (block + 1) * size_); }
  /// Rows that a block needs.
  std::int64_t rows(std::int64_t block) const { return std::int64_t(senders_[block].size()); }
  /// (n_senders + 1,) into what `list_rows` returns.
  const std::int64_t *offsets() const { return offsets_.data(); }

  /// Where the rows of every sender lie, block after block; `starts`: of every block, rows of `row_size` values.
  template <typename T>
  std::vector<const T *> list_rows(const std::vector<T *> &starts, std::int64_t row_size) const {
    std::vector<const T *> rows(offsets_.back());
    std::vector<std::int64_t> next(offsets_.begin(), offsets_.end() - 1);
    for (std::size_t b = 0; b < senders_.size(); ++b)
      for (std::size_t slot = 0; slot < senders_[b].size(); ++slot)
        rows[next[senders_[b][slot]]++] = starts[b] + std::int64_t(slot) * row_size;
    return rows;
  }

 private:
  std::int64_t begin_, end_, size_;
  std::vector<std::vector<std::int64_t>> senders_;
  std::vector<std::int64_t> offsets_;
};

}  // namespace mdplugin
