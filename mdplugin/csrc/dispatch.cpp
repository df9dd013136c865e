// SPDX-License-Identifier: MIT
// The processor that runs, or MDPLUGIN_ISA -> the kernels compiled for it.
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "matrix_kernels.h"

namespace mdplugin {

namespace v3 {
const Kernels<float> &float_kernels();
const Kernels<double> &double_kernels();
const MatrixKernels &matrix_kernels();
}  // namespace v3
namespace v4 {
const Kernels<float> &float_kernels();
const Kernels<double> &double_kernels();
const MatrixKernels &matrix_kernels();
}  // namespace v4
namespace v4dot {
const Kernels<float> &float_kernels();
const MatrixKernels &matrix_kernels();
}  // namespace v4dot

namespace {
void require_avx2() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
    throw std::runtime_error("mdplugin: expected a processor with AVX2 and FMA: this one has not");
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd");
}

enum class Instructions : int { v3, v4, v4dot };
constexpr const char *names[] = {"v3", "v4", "v4dot"};

/// The widest set of this processor, or the one that MDPLUGIN_ISA names (docs/precision.md).
Instructions choose() {
  require_avx2();
  const bool dot = has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  const Instructions widest = dot ? Instructions::v4dot : has_avx512() ? Instructions::v4 : Instructions::v3;
  const char *wanted = std::getenv("MDPLUGIN_ISA");
  if (!wanted || !*wanted) return widest;
  for (int i = 0; i <= int(widest); ++i)
    if (std::strcmp(wanted, names[i]) == 0) return Instructions(i);
  std::string legal = names[0];
  for (int i = 1; i <= int(widest); ++i) legal += std::string(", ") + names[i];
  throw std::runtime_error("mdplugin: MDPLUGIN_ISA: expected one of " + legal + " on this processor, got '" + wanted + "'");
}

Instructions chosen() {
  static const Instructions set = choose();  // once: packed matrices are laid out for it
  return set;
}
}  // namespace

std::string instruction_set() { return names[int(chosen())]; }

const MatrixKernels &matrix_kernels() {
  switch (chosen()) {
    case Instructions::v4dot: return v4dot::matrix_kernels();
    case Instructions::v4: return v4::matrix_kernels();
    default: return v3::matrix_kernels();
  }
}

template <>
const Kernels<float> &kernels<float>() {
  switch (chosen()) {
    case Instructions::v4dot: return v4dot::float_kernels();
    case Instructions::v4: return v4::float_kernels();
    default: return v3::float_kernels();
  }
}

template <>
const Kernels<double> &kernels<double>() {
  return chosen() == Instructions::v3 ? v3::double_kernels() : v4::double_kernels();
}

}  // namespace mdplugin

TORCH_LIBRARY_FRAGMENT(mdplugin, library) { library.def("instruction_set() -> str", &mdplugin::instruction_set); }
