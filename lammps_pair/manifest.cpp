// SPDX-License-Identifier: GPL-2.0-only
#include "manifest.h"

#include <array>
#include <cmath>
#include <string_view>

#include "json.h"

namespace mdplugin {
namespace {

constexpr int known_schema = 2;

constexpr std::array<std::string_view, 119> symbols = {
    "X",  "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si",
    "P",  "S",  "Cl", "Ar", "K",  "Ca", "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu",
    "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",  "Zr", "Nb", "Mo", "Tc", "Ru",
    "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr",
    "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",
    "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac",
    "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf",
    "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};

std::string check_values(const Manifest &manifest) {
  if (!(manifest.r_max > 0.0) || !std::isfinite(manifest.r_max)) return "r_max is not positive";
  if (manifest.atomic_numbers.empty()) return "no elements";
  if (manifest.masses.size() != manifest.atomic_numbers.size()) return "a mass is missing";
  for (const int number : manifest.atomic_numbers)
    if (number < 1 || number >= static_cast<int>(symbols.size())) return "unknown atomic number";
  return "";
}

void read_values(const LAMMPS_NS::json &values, Manifest &manifest) {
  manifest.precision = values.at("precision").get<std::string>();
  if (values.contains("calibration") && !values.at("calibration").is_null()) manifest.precision += " calibrated";
  manifest.trained_dtype = values.at("trained_dtype").get<std::string>();
  manifest.atomic_numbers = values.at("atomic_numbers").get<std::vector<int>>();
  manifest.masses = values.at("masses_amu").get<std::vector<double>>();
  manifest.r_max = values.at("r_max").get<double>();
}

}  // namespace

std::string Manifest::element_list() const {
  std::string list;
  for (const int number : atomic_numbers) {
    if (!list.empty()) list += ' ';
    list += symbols[number];
  }
  return list;
}

int Manifest::find_species(const std::string &symbol) const {
  for (std::size_t i = 0; i < atomic_numbers.size(); ++i)
    if (symbols[atomic_numbers[i]] == symbol) return static_cast<int>(i);
  return -1;
}

std::string parse_manifest(const std::string &text, const std::string &path, Manifest &manifest) {
  std::string damage;
  try {
    const auto values = LAMMPS_NS::json::parse(text);
    const int schema = values.at("schema").get<int>();
    if (schema != known_schema)
      return path + " has schema " + std::to_string(schema) + ", this mdplugin reads " + std::to_string(known_schema) +
             ": export the model again with this version, or take the one that wrote it";
    read_values(values, manifest);
    damage = check_values(manifest);
  } catch (const LAMMPS_NS::json::exception &error) {
    damage = error.what();
  }
  if (damage.empty()) return "";
  return path + " has a damaged manifest (" + damage + "): export the model again";
}

}  // namespace mdplugin
