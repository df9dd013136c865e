// SPDX-License-Identifier: GPL-2.0-only
#include "neighbor_graph.h"

#include <algorithm>
#include <numeric>

#include "atom.h"
#include "comm.h"
#include "ghost_halo.h"
#include "neigh_list.h"

namespace LAMMPS_NS {

void NeighborGraph::renew(const NeighList &list) {
  n_local_ = lammps_->atom->nlocal;
  n_all_ = n_local_ + lammps_->atom->nghost;
  find_owners();

  centers_.assign(list.ilist, list.ilist + list.inum);
  std::sort(centers_.begin(), centers_.end());  // the network wants ascending receivers

  std::size_t n_pairs = 0;
  for (const int i : centers_) n_pairs += list.numneigh[i];
  n_pairs = std::max<std::size_t>(n_pairs, 1);  // a view of no edges still wants an address
  if (n_pairs > senders_.size()) {
    senders_.resize(n_pairs);
    receivers_.resize(n_pairs);
    vectors_.resize(3 * n_pairs);
  }
}

void NeighborGraph::find_owners() {
  node_of_.resize(n_all_);
  std::iota(node_of_.begin(), node_of_.end(), 0);
  if (lammps_->comm->nprocs > 1 || n_local_ == 0) return;
  owner_buffer_.assign(node_of_.begin(), node_of_.end());
  halo_->forward(owner_buffer_.data(), 1);  // needs no atom map, unlike a look-up by atom ID
  std::copy(owner_buffer_.begin(), owner_buffer_.end(), node_of_.begin());
}

bool NeighborGraph::is_current() const {
  return n_local_ == lammps_->atom->nlocal && n_all_ == n_local_ + lammps_->atom->nghost;
}

std::int64_t NeighborGraph::find_edges(const NeighList &list, double r_max) {
  double *const *x = lammps_->atom->x;
  const double r_max_squared = r_max * r_max;
  std::int64_t n_edges = 0;
  for (const int i : centers_) {
    for (int k = 0; k < list.numneigh[i]; ++k) {
      const int j = list.firstneigh[i][k] & NEIGHMASK;
      const double dx = x[i][0] - x[j][0];
      const double dy = x[i][1] - x[j][1];
      const double dz = x[i][2] - x[j][2];
      // written so that NaN becomes an edge: the network's result then says so
      if (dx * dx + dy * dy + dz * dz >= r_max_squared) continue;
      senders_[n_edges] = node_of_[j];
      receivers_[n_edges] = i;
      double *vector = &vectors_[3 * n_edges++];
      vector[0] = dx;
      vector[1] = dy;
      vector[2] = dz;
    }
  }
  return n_edges;
}

mdplugin::Graph NeighborGraph::update(const NeighList &list, double r_max,
                                      const std::vector<std::int64_t> &species_of_type) {
  mdplugin::Graph graph;
  graph.n_local = halo_->n_local();
  graph.n_nodes = lammps_->comm->nprocs > 1 ? halo_->n_nodes() : halo_->n_local();
  graph.n_edges = find_edges(list, r_max);
  species_.assign(graph.n_nodes, 0);  // also of padding and of unserved types: they have no edges
  const int *type = lammps_->atom->type;
  const std::int64_t n_padding = halo_->n_padding();
  for (std::int64_t i = n_padding; i < graph.n_nodes; ++i)
    species_[i] = std::max<std::int64_t>(species_of_type[type[i - n_padding]], 0);
  graph.edge_vectors = vectors_.data();
  graph.senders = senders_.data();
  graph.receivers = receivers_.data();
  graph.species = species_.data();
  return graph;
}

double NeighborGraph::memory_usage() const {
  const std::size_t words = owner_buffer_.size() + node_of_.size() + species_.size() +
                            senders_.size() + receivers_.size() + vectors_.size();
  return 8.0 * words + 4.0 * centers_.size();
}

}  // namespace LAMMPS_NS
