// SPDX-License-Identifier: MIT
// The processor that runs -> the kernels compiled for it.
#include <stdexcept>

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
bool require_avx2() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
    throw std::runtime_error("mdplugin: expected a processor with AVX2 and FMA: this one has not");
  return true;
}

bool has_avx512() {
  static const bool checked = require_avx2();
  static const bool found = checked && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512cd");
  return found;
}

bool has_dot() {
  static const bool found = has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  return found;
}
}  // namespace

const MatrixKernels &matrix_kernels() {
  return has_dot() ? v4dot::matrix_kernels() : has_avx512() ? v4::matrix_kernels() : v3::matrix_kernels();
}

template <>
const Kernels<float> &kernels<float>() {
  return has_dot() ? v4dot::float_kernels() : has_avx512() ? v4::float_kernels() : v3::float_kernels();
}

template <>
const Kernels<double> &kernels<double>() {
  return has_avx512() ? v4::double_kernels() : v3::double_kernels();
}

}  // namespace mdplugin
