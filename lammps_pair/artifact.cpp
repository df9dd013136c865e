// SPDX-License-Identifier: GPL-2.0-only
// TorchScript archive -> mdplugin::Artifact: check what the file is, load it, run it.
#include "artifact.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "halo.h"
#include "sha256.h"

#define MDPLUGIN_EXPORT extern "C" __attribute__((visibility("default")))

// A symbol of its own, so that `mdplugin doctor` and a debugger can read what this was built for.
MDPLUGIN_EXPORT const char mdplugin_torch_version[] = MDPLUGIN_TORCH_VERSION;

namespace mdplugin {
namespace {

constexpr const char *manifest_record = "extra/mdplugin.json";
constexpr const char *certificates_record = "extra/mdplugin-certificates.json";

/// A failure whose text is already one line for the user.
struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// '2.13.0+cpu' -> '2.13.0': the library reports its version without the local suffix.
std::string public_version(const std::string &version) {
  return version.substr(0, version.find('+'));
}

std::string running_torch_version() {
  const std::string settings = at::show_config();
  const std::string key = "TORCH_VERSION=";
  const auto start = settings.find(key);
  if (start == std::string::npos) return "of unknown version";
  const auto first = start + key.size();
  return settings.substr(first, settings.find_first_of(", \n", first) - first);
}

void require_matching_torch() {
  const std::string running = running_torch_version();
  if (public_version(running) == public_version(mdplugin_torch_version)) return;
  throw Refusal("libmdplugin_artifact.so was built for torch " +
                std::string(mdplugin_torch_version) + ", running torch " + running +
                ": run `mdplugin doctor`");
}

/// The line of a torch message that says what went wrong, without C++ and TorchScript traces.
std::string essence(const std::string &message) {
  const std::string marker = "RuntimeError: ";
  const auto found = message.rfind(marker);
  const auto start = found == std::string::npos ? 0 : found + marker.size();
  return message.substr(start, message.find('\n', start) - start);
}

/// Run `work`; whatever it throws becomes a text of one line.
template <typename Work>
std::string catch_all(const std::string &where, Work &&work) noexcept {
  try {
    work();
    return "";
  } catch (const Refusal &refusal) {
    return refusal.what();
  } catch (const c10::Error &error) {
    return where + essence(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return where + essence(error.what());
  }
}

std::string export_advice(const std::string &path) {
  return ": run `mdplugin export MODEL.model -o " + path + "` and give its output";
}

/// Refuse what is not even a zip archive, by its first bytes.
void require_archive(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 4> head{};
  if (!file.read(head.data(), head.size()) && file.gcount() == 0) {
    const std::string reason = file.is_open() ? "the file is empty or a directory"
                                              : std::strerror(errno);
    throw Refusal("cannot read " + path + ": " + reason +
                  "; expected an artifact of `mdplugin export`");
  }
  if (head == std::array{'P', 'K', '\3', '\4'}) return;
  const std::string kind = head[0] == '\x80' ? "a Python pickle" : "neither a model nor an archive";
  throw Refusal(path + " is " + kind + ", expected an artifact of `mdplugin export`" +
                export_advice("FILE.pt"));
}

/// The manifest, or a refusal that says what the archive is instead.
std::string read_manifest(const std::string &path) {
  require_archive(path);
  try {
    caffe2::serialize::PyTorchStreamReader reader(path);
    if (reader.hasRecord(manifest_record)) {
      const auto [data, size] = reader.getRecord(manifest_record);
      return {static_cast<const char *>(data.get()), size};
    }
    const std::string expected = ", expected an artifact of `mdplugin export`";
    if (reader.hasRecord("constants.pkl"))
      throw Refusal(path + " is a TorchScript network of another program" + expected +
                    ": export the .model file it was made from");
    if (reader.hasRecord("data.pkl"))
      throw Refusal(path + " is a checkpoint (.model)" + expected + ": run `mdplugin export " +
                    path + " -o FILE.pt` and give FILE.pt");
    throw Refusal(path + " is an archive without a network" + expected + export_advice("FILE.pt"));
  } catch (const c10::Error &) {
    throw Refusal(path + " is a truncated or damaged archive, expected an artifact of " +
                  "`mdplugin export`: copy or export it again");
  }
}

/// SHA-256 over all records but the certificates, as mdplugin/archive.py defines it.
std::string hash_content(caffe2::serialize::PyTorchStreamReader &reader) {
  reader.setShouldLoadDebugSymbol(true);  // else such records are passed over
  std::vector<std::string> names = reader.getAllRecords();
  std::sort(names.begin(), names.end());
  Sha256 hash;
  const auto update = [&hash](const void *data, std::uint64_t size) {
    std::array<unsigned char, 8> length{};
    for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(size >> 8 * i);
    hash.update(length.data(), length.size());
    hash.update(data, size);
  };
  for (const std::string &name : names) {
    if (name == certificates_record) continue;
    const auto [data, size] = reader.getRecord(name);
    update(name.data(), name.size());
    update(data.get(), size);
  }
  return hash.finish();
}

/// Sets the number of threads for a scope; 0 leaves it.
class ThreadScope {
 public:
  explicit ThreadScope(int n_threads) : before_(at::get_num_threads()) {
    if (n_threads > 0 && n_threads != before_) at::set_num_threads(n_threads);
  }
  ~ThreadScope() {
    if (at::get_num_threads() != before_) at::set_num_threads(before_);
  }
  ThreadScope(const ThreadScope &) = delete;
  ThreadScope &operator=(const ThreadScope &) = delete;

 private:
  int before_;
};

/// A view of the engine's memory; torch does not write to the network's inputs.
template <typename T>
at::Tensor view(const T *data, at::IntArrayRef shape, at::ScalarType type) {
  return at::from_blob(const_cast<T *>(data), shape, at::TensorOptions().dtype(type));
}

at::Tensor checked_output(const c10::IValue &value, at::IntArrayRef shape, const char *name) {
  TORCH_CHECK(value.isTensor(), "the network's ", name, " is not a tensor");
  const at::Tensor tensor = value.toTensor().detach().contiguous();
  TORCH_CHECK(tensor.sizes() == shape && tensor.scalar_type() == at::kDouble, "the network's ",
              name, " has shape ", tensor.sizes(), " and type ", tensor.scalar_type(),
              ", expected ", shape, " and Double");
  return tensor;
}

/// First local node whose energy or incoming edge force is not finite, or -1.
std::int64_t find_broken_node(const Graph &graph, const Evaluation &result) {
  for (std::int64_t i = 0; i < graph.n_local; ++i)
    if (!std::isfinite(result.node_energy[i])) return i;
  for (std::int64_t k = 0; k < 3 * graph.n_edges; ++k)
    if (!std::isfinite(result.edge_force[k])) return graph.receivers[k / 3];
  return -1;
}

class TorchArtifact final : public Artifact {
 public:
  explicit TorchArtifact(std::string path)
      : path_(std::move(path)), manifest_(read_manifest(path_)) {}

  const std::string &manifest() const noexcept override { return manifest_; }

  std::string read_certificates(std::string &json,
                                std::string &content_sha256) noexcept override {
    return catch_all(path_ + ": the certificates cannot be read: ", [&] {
      caffe2::serialize::PyTorchStreamReader reader(path_);
      if (!reader.hasRecord(certificates_record)) return;
      const auto [data, size] = reader.getRecord(certificates_record);
      json.assign(static_cast<const char *>(data.get()), size);
      content_sha256 = hash_content(reader);
    });
  }

  std::string load() noexcept override {
    return catch_all(path_ + ": the network cannot be loaded, export it again: ", [this] {
      network_ = torch::jit::load(path_, c10::Device(c10::kCPU));
      network_.eval();
    });
  }

  void set_threads(int n_threads) noexcept override { n_threads_ = n_threads; }

  std::string evaluate(const Graph &graph, HaloExchange *exchange,
                       Evaluation &result) noexcept override {
    return catch_all(path_ + ": the network failed: ", [&] {
      run(graph, exchange);
      result = {node_energy_.const_data_ptr<double>(), edge_force_.const_data_ptr<double>(), -1};
      result.broken_node = find_broken_node(graph, result);
      if (result.broken_node >= 0)
        throw Refusal(path_ + " gives an energy or a force that is not finite: look for atoms on " +
                      "top of each other or positions that are not numbers");
    });
  }

 private:
  void run(const Graph &graph, HaloExchange *exchange) {
    const ThreadScope threads(n_threads_);
    const HaloScope halo(exchange);
    const c10::AutoGradMode gradients(true);  // a Python caller may have switched them off
    // The profiling executor compiles variants in the first calls: slow, and rounding changes.
    const torch::jit::GraphOptimizerEnabledGuard unoptimized(false);
    const auto [n_local, n_nodes, n_edges, vectors, senders, receivers, species] = graph;
    const auto outputs =
        network_
            .forward({view(vectors, {n_edges, 3}, at::kDouble),
                      view(senders, {n_edges}, at::kLong), view(receivers, {n_edges}, at::kLong),
                      view(species, {n_nodes}, at::kLong), n_local})
            .toTuple();
    TORCH_CHECK(outputs->elements().size() == 2, "the network does not return two tensors");
    node_energy_ = checked_output(outputs->elements()[0], {n_local}, "node_energy");
    edge_force_ = checked_output(outputs->elements()[1], {n_edges, 3}, "edge_force");
  }

  std::string path_;
  std::string manifest_;
  torch::jit::Module network_;
  at::Tensor node_energy_;
  at::Tensor edge_force_;
  int n_threads_ = 0;
};

}  // namespace
}  // namespace mdplugin

// C linkage gives dlsym a plain name; the C++ types are fine, both sides come from one build.
MDPLUGIN_EXPORT std::string mdplugin_open_artifact_2(
    const std::string &path, std::unique_ptr<mdplugin::Artifact> &artifact) noexcept {
  return mdplugin::catch_all(path + ": ", [&] {
    mdplugin::require_matching_torch();
    artifact = std::make_unique<mdplugin::TorchArtifact>(path);
  });
}
