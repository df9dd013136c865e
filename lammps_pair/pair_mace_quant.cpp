// SPDX-License-Identifier: GPL-2.0-only
#include "pair_mace_quant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string_view>

#include "artifact_library.h"
#include "atom.h"
#include "certificate.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "platform.h"
#include "update.h"

namespace LAMMPS_NS {
namespace {

constexpr const char *no_element = "NULL";  // LAMMPS's word for a type that another style serves

/// Edits (insert, delete, replace) that turn `a` into `b`.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string suggest_option(const std::string &name) {
  for (const std::string option : {"threads", "device"})
    if (edit_distance(name, option) <= 2) return "; did you mean '" + option + "'?";
  return "";
}

std::string join(int n, char **words) {
  std::string text;
  for (int i = 0; i < n; ++i) text.append(i ? " " : "").append(words[i]);
  return text;
}

}  // namespace

PairMACEQuant::PairMACEQuant(LAMMPS *lammps)
    : Pair(lammps), halo_(lammps, this), graph_(lammps, &halo_) {
  single_enable = 0;
  restartinfo = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;  // folded ghosts receive no forces, so sum(f.r) would miss images
  // An edge's force depends on many atoms, so halving its virial is a convention: good for stress,
  // not for the heat flux that the centroid form promises.
  centroidstressflag = CENTROID_NOTAVAIL;
  comm_forward = comm_reverse = GhostHalo::block_doubles;
  nextra = n_stages;
  pvector = new double[n_stages]{};
}

PairMACEQuant::~PairMACEQuant() {
  delete[] pvector;
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairMACEQuant::fail(const std::string &message, std::source_location where) {
  error->all("pair_mace_quant.cpp", static_cast<int>(where.line()), message);
}

/// Fail on all ranks when any rank has a message, with the first one's; each rank must call this.
void PairMACEQuant::fail_together(const std::string &message) {
  const int mine = message.empty() ? comm->nprocs : comm->me;
  int first = mine;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return;
  std::string shared = message;
  int length = static_cast<int>(shared.size());
  MPI_Bcast(&length, 1, MPI_INT, first, world);
  shared.resize(length);
  MPI_Bcast(shared.data(), length, MPI_CHAR, first, world);
  fail(shared);
}

// ------------------------------------------------------------------------------ input commands

void PairMACEQuant::settings(int narg, char **arg) {
  threads_ = 0;
  for (int i = 0; i < narg; i += 2) parse_option(arg[i], i + 1 < narg ? arg[i + 1] : nullptr);
}

void PairMACEQuant::parse_option(const std::string &name, const char *value) {
  const std::string style = "pair_style mace/quant: ";
  if (name != "threads" && name != "device")
    fail(style + "unknown option '" + name + "', expected: threads N, device cpu" +
         suggest_option(name));
  if (value == nullptr) fail(style + "option '" + name + "' needs a value");
  const std::string text = value;
  if (name == "device") {
    if (text != "cpu")
      fail(style + "device: expected cpu, got '" + text + "' (this version has no GPU kernels)");
    return;
  }
  const bool is_count = utils::is_integer(text) && text.size() <= 4;
  threads_ = is_count ? std::stoi(text) : 0;
  if (threads_ < 1)
    fail(style + "threads: expected a whole number from 1 to 9999, got '" + text + "'");
}

double PairMACEQuant::energy_unit() {
  const std::string units = update->unit_style;
  if (units == "metal") return 1.0;
  if (units == "real") return utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  fail("mace/quant: expected units metal or real, got '" + units +
       "': change the units command and the input's numbers");
}

void PairMACEQuant::require_usage(int narg, char **arg) {
  const int n_elements = std::max(narg - 3, 0);
  if (narg >= 3 && n_elements == atom->ntypes) return;
  fail("pair_coeff: expected * * FILE.pt and " + std::to_string(atom->ntypes) +
       " elements, one per atom type, got " + std::to_string(n_elements) + " elements: " +
       join(narg, arg));
}

void PairMACEQuant::coeff(int narg, char **arg) {
  require_usage(narg, arg);
  from_eV_ = energy_unit();
  const std::string found = utils::get_potential_file_path(arg[2]);
  read_model(found.empty() ? arg[2] : found);
  map_types(narg - 3, arg + 3);
  const std::string failure = artifact_->load();
  fail_together(failure.empty() ? failure : "mace/quant: " + failure);
  announce(arg[2]);
}

/// Open the artifact and check what it is; its network is loaded later, when all else is right.
void PairMACEQuant::read_model(const std::string &path) {
  std::string failure = mdplugin::open_artifact(path, artifact_);
  if (failure.empty()) failure = mdplugin::parse_manifest(artifact_->manifest(), path, manifest_);
  fail_together(failure.empty() ? failure : "mace/quant: " + failure);
}

void PairMACEQuant::map_types(int narg, char **arg) {
  const bool is_hybrid = utils::strmatch(force->pair_style, "^hybrid");
  species_of_type_.assign(narg + 1, -1);
  for (int type = 1; type <= narg; ++type) {
    const std::string symbol = arg[type - 1];
    if (symbol == no_element && is_hybrid) continue;
    species_of_type_[type] = manifest_.find_species(symbol);
    if (species_of_type_[type] >= 0) continue;
    const std::string what = symbol == no_element ? "' (only for pair_style hybrid)" : "'";
    fail("pair_coeff: element '" + symbol + what + " (type " + std::to_string(type) +
         ") is not in the model; it knows " + manifest_.element_list());
  }
  allocate();
  for (int i = 1; i <= narg; ++i)
    for (int j = i; j <= narg; ++j)
      setflag[i][j] = species_of_type_[i] >= 0 && species_of_type_[j] >= 0;
}

void PairMACEQuant::allocate() {
  if (allocated) return;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  std::memset(setflag[0], 0, sizeof(int) * n * n);
  allocated = 1;
}

void PairMACEQuant::announce(const std::string &path) {
  if (comm->me != 0) return;
  utils::logmesg(lmp, "mace/quant: {} precision {}, elements {}, trained {}, {}\n", path,
                 manifest_.precision, manifest_.element_list(), manifest_.trained_dtype,
                 mdplugin::describe_certificates(*artifact_));
}

// ------------------------------------------------------------------------------ before a run

void PairMACEQuant::init_style() {
  if (force->newton_pair == 0)
    fail("mace/quant: expected newton on for pairs, got off: write `newton on` before the box");
  if (neighbor->nex_type + neighbor->nex_group + neighbor->nex_mol > 0)
    fail("mace/quant: neigh_modify exclude would hide neighbors that the energy depends on: "
         "remove it (to freeze atoms, use fix setforce)");
  if (neighbor->includegroup || atom->firstgroupname)
    fail("mace/quant: neigh_modify include and atom_modify first would hide neighbors that the "
         "energy depends on: remove them");
  fail_together(describe_excluded_bonds());
  compare_masses();
  artifact_->set_threads(threads_);
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

/// Elements in the wrong order give a run without an error and without sense: the masses tell.
void PairMACEQuant::compare_masses() {
  if (comm->me != 0 || atom->rmass) return;
  for (int type = 1; type <= atom->ntypes; ++type) {
    const auto species = species_of_type_[type];
    if (species < 0 || !atom->mass_setflag[type]) continue;
    const double expected = manifest_.masses[species];
    if (std::abs(atom->mass[type] - expected) <= 0.1 * expected) continue;
    error->warning("pair_mace_quant.cpp", __LINE__,
                   "mace/quant: type {} has mass {:.4g}, pair_coeff makes it an element of mass {:.4g}: "
                   "are the elements in the order of the types? (fine for an isotope)",
                   type, atom->mass[type], expected);
  }
}

/// An error text if special_bonds takes pairs of our atoms out of the neighbor list.
std::string PairMACEQuant::describe_excluded_bonds() const {
  if (atom->molecular == Atom::ATOMIC || force->kspace) return "";  // kspace keeps every pair
  const bool has_counts = atom->molecular == Atom::MOLECULAR;
  for (int shell = 0; shell < 3; ++shell) {
    if (force->special_lj[shell + 1] != 0.0 || force->special_coul[shell + 1] != 0.0) continue;
    for (int i = 0; i < atom->nlocal; ++i) {
      if (species_of_type_[atom->type[i]] < 0) continue;
      const int inner = has_counts && shell > 0 ? atom->nspecial[i][shell - 1] : 0;
      if (!has_counts || atom->nspecial[i][shell] > inner)
        return "mace/quant: special_bonds takes bonded pairs out of the neighbor list, the energy "
               "depends on all: write `special_bonds lj/coul 1.0 1.0 1.0`";
    }
  }
  return "";
}

double PairMACEQuant::init_one(int, int) { return manifest_.r_max; }

/// pair_style hybrid decides which pairs of types our list holds, and only now is that known.
void PairMACEQuant::setup() {
  std::fill_n(pvector, n_stages, 0.0);
  if (list->ijskip == nullptr) return;
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = 1; j <= atom->ntypes; ++j)
      if (species_of_type_[i] >= 0 && species_of_type_[j] >= 0 && list->ijskip[i][j])
        fail("mace/quant: pair_style hybrid gives types " + std::to_string(i) + " and " +
             std::to_string(j) + " to another style, the energy depends on all pairs of mapped "
             "types: use hybrid/overlay, or NULL for types that mace/quant does not serve");
}

// ------------------------------------------------------------------------------ every step

void PairMACEQuant::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  double start = platform::walltime();
  if (neighbor->ago == 0 || !graph_.is_current()) graph_.renew(*list);
  const mdplugin::Graph graph = graph_.update(*list, manifest_.r_max, species_of_type_);
  add_time(edges, start);
  const double exchanged = halo_.seconds();
  mdplugin::Evaluation evaluation;
  const std::string failure =
      artifact_->evaluate(graph, comm->nprocs > 1 ? &halo_ : nullptr, evaluation);
  add_time(network, start);
  pvector[halo] += halo_.seconds() - exchanged;
  pvector[network] -= halo_.seconds() - exchanged;
  check_result(failure, evaluation.broken_node);
  add_forces(graph, evaluation.edge_force);
  if (eflag_either) add_energies(evaluation.node_energy);
  if (vflag_either) add_virials(graph, evaluation.edge_force);
  add_time(result, start);
}

/// Book the time since `start` on a stage; the next stage starts now.
void PairMACEQuant::add_time(Stage stage, double &start) {
  const double now = platform::walltime();
  pvector[stage] += now - start;
  start = now;
}

void PairMACEQuant::check_result(const std::string &failure, std::int64_t broken_node) {
  std::string message;
  if (!failure.empty()) message = "mace/quant: " + failure;
  if (broken_node >= 0 && broken_node < atom->nlocal && atom->tag_enable)
    message += " (first at atom ID " + std::to_string(atom->tag[broken_node]) + ")";
  // The network stopped half-way: the other ranks may wait in a halo exchange, where no agreement
  // can reach them, so this rank ends the run for all.
  if (!message.empty() && broken_node < 0) error->one("pair_mace_quant.cpp", __LINE__, message);
  fail_together(message);
}

void PairMACEQuant::add_energies(const double *node_energy) {
  for (int i = 0; i < atom->nlocal; ++i) {
    if (species_of_type_[atom->type[i]] < 0) continue;
    const double energy = from_eV_ * node_energy[i];
    if (eflag_global) eng_vdwl += energy;
    if (eflag_atom) eatom[i] += energy;
  }
}

void PairMACEQuant::add_forces(const mdplugin::Graph &graph, const double *edge_force) {
  double **f = atom->f;
  for (std::int64_t e = 0; e < graph.n_edges; ++e) {
    double *receiver = f[graph.receivers[e]];
    double *sender = f[graph.senders[e]];
    for (int a = 0; a < 3; ++a) {
      const double component = from_eV_ * edge_force[3 * e + a];
      receiver[a] += component;
      sender[a] -= component;
    }
  }
}

/// Virial r_a f_b of each edge, symmetrised, in LAMMPS's order xx yy zz xy xz yz; half to each end.
void PairMACEQuant::add_virials(const mdplugin::Graph &graph, const double *edge_force) {
  for (std::int64_t e = 0; e < graph.n_edges; ++e) {
    const double *r = graph.edge_vectors + 3 * e;
    const double *f = edge_force + 3 * e;
    const std::array<double, 6> edge = {r[0] * f[0],
                                        r[1] * f[1],
                                        r[2] * f[2],
                                        0.5 * (r[0] * f[1] + r[1] * f[0]),
                                        0.5 * (r[0] * f[2] + r[2] * f[0]),
                                        0.5 * (r[1] * f[2] + r[2] * f[1])};
    for (int c = 0; c < 6; ++c) {
      if (vflag_global) virial[c] += from_eV_ * edge[c];
      if (!vflag_atom) continue;
      vatom[graph.receivers[e]][c] += 0.5 * from_eV_ * edge[c];
      vatom[graph.senders[e]][c] += 0.5 * from_eV_ * edge[c];
    }
  }
}

double PairMACEQuant::memory_usage() { return Pair::memory_usage() + graph_.memory_usage(); }

// ------------------------------------------------------------------------------ communication

int PairMACEQuant::pack_forward_comm(int n, int *atoms, double *buffer, int, int *) {
  return halo_.pack_forward(n, atoms, buffer);
}

void PairMACEQuant::unpack_forward_comm(int n, int first, double *buffer) {
  halo_.unpack_forward(n, first, buffer);
}

int PairMACEQuant::pack_reverse_comm(int n, int first, double *buffer) {
  return halo_.pack_reverse(n, first, buffer);
}

void PairMACEQuant::unpack_reverse_comm(int n, int *atoms, double *buffer) {
  halo_.unpack_reverse(n, atoms, buffer);
}

}  // namespace LAMMPS_NS
