// SPDX-License-Identifier: GPL-2.0-only
// An artifact of `mdplugin export` as a C++ engine sees it: no torch and no LAMMPS in this header.
//
// The implementation lives in libmdplugin_artifact.so, which an engine opens with dlopen when the
// first model is read; `open_symbol` is its only entry point. No exception crosses that border: a
// failure is a text of one line, an empty text is success.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

namespace mdplugin {

class HaloExchange;

/// What the network reads: nodes 0..n_local-1 are computed here, the others are ghosts.
struct Graph {
  std::int64_t n_local = 0;
  std::int64_t n_nodes = 0;
  std::int64_t n_edges = 0;
  const double *edge_vectors = nullptr;     // (n_edges, 3) Å, r_receiver - r_sender
  const std::int64_t *senders = nullptr;    // (n_edges,) in [0, n_nodes)
  const std::int64_t *receivers = nullptr;  // (n_edges,) in [0, n_local), ascending
  const std::int64_t *species = nullptr;    // (n_nodes,) index into the manifest's atomic_numbers
};

/// What the network returns; the arrays belong to the artifact until its next evaluation.
struct Evaluation {
  const double *node_energy = nullptr;  // (n_local,) eV
  const double *edge_force = nullptr;   // (n_edges, 3) eV/Å, -dE/d(edge_vectors)
  std::int64_t broken_node = -1;        // local node with a non-finite energy or edge force
};

class Artifact {
 public:
  virtual ~Artifact() = default;

  /// The manifest's JSON; known before `load`, so that a newer schema is refused before code runs.
  virtual const std::string &manifest() const noexcept = 0;

  /// The record of certificates, JSON, and the content hash that binds them to this file
  /// (mdplugin/archive.py). Both empty where there is no record. Returns an error text.
  virtual std::string read_certificates(std::string &json, std::string &content_sha256) noexcept = 0;

  /// Load the network. Returns an error text.
  virtual std::string load() noexcept = 0;

  /// Threads of torch and OpenMP during an evaluation; 0 leaves the process's setting.
  virtual void set_threads(int n_threads) noexcept = 0;

  /// Run the network. `exchange` is nullptr where all nodes are local. Returns an error text.
  virtual std::string evaluate(const Graph &graph, HaloExchange *exchange,
                               Evaluation &result) noexcept = 0;
};

/// Open `path` and read its manifest; returns an error text. The name carries the version of this
/// header and of halo.h: a library of another version lacks the symbol.
using OpenArtifact = std::string(const std::string &path, std::unique_ptr<Artifact> &artifact);
inline constexpr const char *open_symbol = "mdplugin_open_artifact_2";

}  // namespace mdplugin
