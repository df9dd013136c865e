// SPDX-License-Identifier: GPL-2.0-only
// pair_style mace/quant [threads N] [device cpu]
// pair_coeff * * FILE.pt EL1 EL2 ...      (one element per atom type)
//
// An artifact of `mdplugin export` as a LAMMPS pair style: energy, forces, virial, per-atom energy
// and virial, on any number of MPI ranks with ghosts one cutoff deep. Units metal and real.
// `compute pair` reads its times (see Stage).
#pragma once
#include <cstdint>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

#include "artifact.h"
#include "ghost_halo.h"
#include "manifest.h"
#include "neighbor_graph.h"
#include "pair.h"

namespace LAMMPS_NS {

class PairMACEQuant : public Pair {
 public:
  explicit PairMACEQuant(LAMMPS *lammps);
  ~PairMACEQuant() override;

  void settings(int narg, char **arg) override;
  void coeff(int narg, char **arg) override;
  void init_style() override;
  double init_one(int i, int j) override;
  void setup() override;
  void compute(int eflag, int vflag) override;
  double memory_usage() override;

  int pack_forward_comm(int n, int *atoms, double *buffer, int, int *) override;
  void unpack_forward_comm(int n, int first, double *buffer) override;
  int pack_reverse_comm(int n, int first, double *buffer) override;
  void unpack_reverse_comm(int n, int *atoms, double *buffer) override;

 private:
  [[noreturn]] void fail(const std::string &message,
                         std::source_location where = std::source_location::current());
  void fail_together(const std::string &message);

  void parse_option(const std::string &name, const char *value);
  double energy_unit();
  void require_usage(int narg, char **arg);
  void read_model(const std::string &path);
  void map_types(int narg, char **arg);
  void allocate();
  void announce(const std::string &path);
  void compare_masses();
  std::string describe_excluded_bonds() const;

  /// What the pair style keeps times of, in the order of pvector: seconds since the run's setup.
  enum Stage { edges, network, halo, result, n_stages };
  void add_time(Stage stage, double &start);

  void check_result(const std::string &failure, std::int64_t broken_node);
  void add_energies(const double *node_energy);
  void add_forces(const mdplugin::Graph &graph, const double *edge_force);
  void add_virials(const mdplugin::Graph &graph, const double *edge_force);

  int threads_ = 0;            // of torch; 0: as LAMMPS has set it
  double from_eV_ = 1.0;       // energy of 1 eV in LAMMPS's units; lengths are Å in metal and real
  std::unique_ptr<mdplugin::Artifact> artifact_;
  mdplugin::Manifest manifest_;
  std::vector<std::int64_t> species_of_type_;  // by type, -1 where pair_coeff says NULL
  GhostHalo halo_;
  NeighborGraph graph_;
};

}  // namespace LAMMPS_NS
