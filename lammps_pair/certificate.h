// SPDX-License-Identifier: GPL-2.0-only
// The certificates of an artifact (mdplugin/certificate.py) -> the words of the banner.
#pragma once
#include <string>

#include "artifact.h"

namespace mdplugin {

/// The lines of those certificates whose content hash is that of the file, or "not validated"; what
/// the file carries beside is said to be ignored. The same words as in Python. Never fails.
std::string describe_certificates(Artifact &artifact);

}  // namespace mdplugin
