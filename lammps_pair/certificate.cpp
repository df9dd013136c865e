// SPDX-License-Identifier: GPL-2.0-only
#include "certificate.h"

#include <algorithm>

#include "json.h"

namespace mdplugin {
namespace {

constexpr int newest_schema = 1;
constexpr const char *not_validated = "not validated";
constexpr const char *foreign = "carries a certificate that is not this file's, ignored";

struct Lines {
  std::string valid;         // with semicolons between
  bool has_foreign = false;  // of another file, damaged, or of a later version
};

/// Throws json's exceptions where the text is not what mdplugin/certificate.py writes.
Lines select(const std::string &text, const std::string &content_sha256) {
  const auto stored = LAMMPS_NS::json::parse(text);
  Lines lines;
  if (stored.at("schema").get<int>() > newest_schema) return {"", true};
  for (const auto &certificate : stored.at("certificates")) {
    const auto line = certificate.at("line").get<std::string>();
    if (std::any_of(line.begin(), line.end(), [](unsigned char c) { return c < ' '; }))
      return {"", true};
    if (certificate.at("content_sha256").get<std::string>() != content_sha256)
      lines.has_foreign = true;
    else
      lines.valid += (lines.valid.empty() ? "" : "; ") + line;
  }
  return lines;
}

}  // namespace

std::string describe_certificates(Artifact &artifact) {
  std::string text, content_sha256;
  Lines lines;
  const std::string failure = artifact.read_certificates(text, content_sha256);
  try {
    if (!failure.empty())
      lines.has_foreign = true;
    else if (!text.empty())
      lines = select(text, content_sha256);
  } catch (const LAMMPS_NS::json::exception &) {
    lines = {"", true};
  }
  if (lines.valid.empty()) lines.valid = not_validated;
  return lines.has_foreign ? lines.valid + "; " + foreign : lines.valid;
}

}  // namespace mdplugin
