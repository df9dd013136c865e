// SPDX-License-Identifier: GPL-2.0-only
// Finds and opens libmdplugin_artifact.so (and with it torch) when the first model is read.
#pragma once
#include <memory>
#include <string>

#include "artifact.h"

namespace mdplugin {

/// Open the artifact `path`; its manifest is then known, its network not loaded. Returns an error
/// text of one line: no library, a library of another version, or what the file is instead.
std::string open_artifact(const std::string &path, std::unique_ptr<Artifact> &artifact);

}  // namespace mdplugin
