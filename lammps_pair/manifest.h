// SPDX-License-Identifier: GPL-2.0-only
// The manifest of an artifact (JSON) -> the values that the pair style asks for.
#pragma once
#include <string>
#include <vector>

namespace mdplugin {

struct Manifest {
  std::string precision;             // policy, as given to `mdplugin export`, and whether calibrated
  std::string trained_dtype;         // of the checkpoint's weights
  std::vector<int> atomic_numbers;   // `species` of the network indexes it
  std::vector<double> masses;        // standard atomic masses in g/mol, one per element
  double r_max = 0.0;                // cutoff in Å

  /// Symbols in the order of atomic_numbers, with spaces between.
  std::string element_list() const;

  /// Index of the element `symbol` in atomic_numbers, or -1.
  int find_species(const std::string &symbol) const;
};

/// Parse the JSON `text` of the file `path`. Returns an error text (empty: success): JSON that is
/// damaged, or of a schema newer than this version of mdplugin.
std::string parse_manifest(const std::string &text, const std::string &path, Manifest &manifest);

}  // namespace mdplugin
