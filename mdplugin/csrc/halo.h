// SPDX-License-Identifier: MIT
// Node features of a domain-decomposed run: the border between the op mdplugin::halo and an engine.
//
// The op hands over a row-major buffer (n_nodes, width); rows 0..n_local-1 belong to this process,
// the others are ghosts: copies of rows that other processes (or periodic images) own. No torch
// here, so that an engine can implement the exchange without torch's headers.
#pragma once
#include <cstdint>

#define MDPLUGIN_API __attribute__((visibility("default")))

namespace mdplugin {

/// What an engine implements. The calls are collective: every process, also one without atoms,
/// makes the same ones in the same order.
class HaloExchange {
 public:
  virtual ~HaloExchange() = default;

  virtual std::int64_t n_local() const = 0;
  virtual std::int64_t n_nodes() const = 0;

  /// Fill the ghost rows of `rows` from their owners.
  virtual void forward(float *rows, std::int64_t width) = 0;
  virtual void forward(double *rows, std::int64_t width) = 0;

  /// Add the ghost rows of `rows` to their owners' rows, then zero the ghost rows.
  virtual void reverse(float *rows, std::int64_t width) = 0;
  virtual void reverse(double *rows, std::int64_t width) = 0;
};

/// While it lives, mdplugin::halo goes through `exchange` (nullptr: one process, no ghosts).
/// Process-wide, not thread-local; scopes nest.
class MDPLUGIN_API HaloScope {
 public:
  explicit HaloScope(HaloExchange *exchange);
  ~HaloScope();
  HaloScope(const HaloScope &) = delete;
  HaloScope &operator=(const HaloScope &) = delete;

 private:
  HaloExchange *outer_;
};

}  // namespace mdplugin
