// SPDX-License-Identifier: GPL-2.0-only
#include "artifact_library.h"

#include <dlfcn.h>
#include <link.h>

#include <filesystem>

namespace mdplugin {
namespace {

namespace fs = std::filesystem;

constexpr const char *artifact_name = "libmdplugin_artifact.so";
constexpr const char *ops_name = "libmdplugin_ops.so";

int note_loaded_directory(dl_phdr_info *info, std::size_t, void *found) {
  const fs::path file = info->dlpi_name;
  if (file.filename() != artifact_name && file.filename() != ops_name) return 0;
  *static_cast<fs::path *>(found) = file.parent_path();
  return 1;
}

/// Where this process has our libraries already (Python imported mdplugin, say), or empty.
/// torch ends the process when the ops are registered again from a second copy.
fs::path loaded_directory() {
  fs::path directory;
  dl_iterate_phdr(note_loaded_directory, &directory);
  return directory;
}

/// The directory of this plugin.
fs::path own_directory() {
  static const char anchor = 0;
  Dl_info info;
  if (dladdr(&anchor, &info) == 0) return {};
  std::error_code ignored;  // an unresolvable path stays as it is; dlopen then says what is wrong
  const fs::path file = fs::weakly_canonical(info.dli_fname, ignored);
  return (ignored ? fs::path(info.dli_fname) : file).parent_path();
}

std::string one_line(const char *message) {
  const std::string text = message ? message : "no reason given";
  return text.substr(0, text.find('\n'));
}

}  // namespace

std::string open_artifact(const std::string &path, std::unique_ptr<Artifact> &artifact) {
  const fs::path loaded = loaded_directory();
  const fs::path library = (loaded.empty() ? own_directory() : loaded) / artifact_name;
  // never closed: torch cannot be unloaded
  void *handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const std::string reason = one_line(dlerror());
    return "cannot load " + library.string() + " (" + reason + "): run `mdplugin doctor`";
  }
  auto *open = reinterpret_cast<OpenArtifact *>(dlsym(handle, open_symbol));
  if (open == nullptr)
    return library.string() + " belongs to another version of mdplugin than this plugin: " +
           "use one installation, `mdplugin doctor` shows which is loaded";
  return open(path, artifact);
}

}  // namespace mdplugin
