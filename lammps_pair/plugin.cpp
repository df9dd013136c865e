// SPDX-License-Identifier: GPL-2.0-only
// Registers `pair_style mace/quant` with the LAMMPS that loads this plugin.
#include "comm.h"
#include "error.h"
#include "lammps.h"

#include "lammpsplugin_abi.h"
#include "pair_mace_quant.h"

// A symbol of its own, so that `mdplugin doctor` and a debugger can read what this was built for.
extern "C" __attribute__((visibility("default"))) const int mdplugin_lammps_version =
    MDPLUGIN_LAMMPS_VERSION;

namespace {

void *make_pair_mace_quant(void *lammps) {
  return new LAMMPS_NS::PairMACEQuant(static_cast<LAMMPS_NS::LAMMPS *>(lammps));
}

}  // namespace

void lammpsplugin_init(void *lammps, void *handle, void *register_style) {
  auto *lmp = static_cast<LAMMPS_NS::LAMMPS *>(lammps);
  if (lmp->num_ver != mdplugin_lammps_version) {
    // Another version may lay out its classes differently: run none of our code in it.
    if (lmp->comm->me == 0)
      lmp->error->warning("plugin.cpp", __LINE__,
                          "mace/quant: plugin built for LAMMPS {}, this is LAMMPS {}; pair_style "
                          "mace/quant is not available: run `mdplugin doctor`",
                          mdplugin_lammps_version, lmp->num_ver);
    return;
  }
  LammpsPlugin plugin{};
  plugin.version = lmp->version;
  plugin.style = "pair";
  plugin.name = "mace/quant";
  plugin.info = "MACE artifacts of mdplugin, pair_style mace/quant";
  plugin.author = "the mdplugin authors";
  plugin.creator.v1 = &make_pair_mace_quant;
  plugin.handle = handle;
  reinterpret_cast<mdplugin_lammps_register>(register_style)(&plugin, lammps);
}
