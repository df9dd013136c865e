// SPDX-License-Identifier: GPL-2.0-only
// LAMMPS's neighbor list -> the graph that the network reads. A node is an atom of this rank, by
// its LAMMPS index, so that senders and receivers also say where forces go. (On a rank without
// atoms there are no edges, and the nodes are a padding node and the ghosts: see GhostHalo.)
#pragma once
#include <cstdint>
#include <vector>

#include "artifact.h"
#include "lammps.h"

namespace LAMMPS_NS {
class GhostHalo;
class NeighList;

class NeighborGraph {
 public:
  NeighborGraph(LAMMPS *lammps, GhostHalo *halo) : lammps_(lammps), halo_(halo) {}

  /// Take over a neighbor list that LAMMPS has just built. With one rank every ghost is an image of
  /// an own atom: the halo tells of which, and the ghosts are folded onto their owners.
  void renew(const NeighList &list);

  /// False when atoms came or went since `renew`.
  bool is_current() const;

  /// The edges within r_max at the present positions; the arrays live until the next update.
  /// `species_of_type` is indexed by atom type, -1 is a type that another pair style serves.
  mdplugin::Graph update(const NeighList &list, double r_max,
                         const std::vector<std::int64_t> &species_of_type);

  double memory_usage() const;

 private:
  void find_owners();
  std::int64_t find_edges(const NeighList &list, double r_max);

  LAMMPS *lammps_;
  GhostHalo *halo_;
  int n_local_ = -1;
  int n_all_ = -1;
  std::vector<int> centers_;            // own atoms that have a neighbor list, ascending
  std::vector<double> owner_buffer_;    // (n_all,) owner's index, as the halo transports it
  std::vector<std::int64_t> node_of_;   // (n_all,) atom -> node
  std::vector<std::int64_t> species_;   // (n_nodes,)
  std::vector<std::int64_t> senders_, receivers_;  // as long as the neighbor list; edges in front
  std::vector<double> vectors_;
};

}  // namespace LAMMPS_NS
