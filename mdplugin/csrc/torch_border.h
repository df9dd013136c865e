// SPDX-License-Identifier: MIT
// What the ops share at their border with torch: checks, pointers, the type of a tensor.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mdplugin {

using at::Tensor;
using Tensors = std::vector<Tensor>;

/// Calls `work(T{})` with the tensor's type, float or double.
template <typename Work>
inline void dispatch(const Tensor &like, Work &&work) {
  if (like.scalar_type() == at::kFloat)
    work(float{});
  else if (like.scalar_type() == at::kDouble)
    work(double{});
  else
    TORCH_CHECK(false, "mdplugin: expected float32 or float64, got ", like.scalar_type());
}

inline void require(const Tensor &t, at::ScalarType type, const char *name) {
  TORCH_CHECK(t.device().is_cpu() && t.is_contiguous() && t.scalar_type() == type, "mdplugin: ", name,
              ": expected a contiguous CPU tensor of type ", type, ", got ", t.scalar_type(), " on ", t.device());
}

/// Whether all are indices below n: kernels read where they point.
inline void require_below(const Tensor &indices, std::int64_t n, const char *name) {
  require(indices, at::kLong, name);
  const std::int64_t *index = indices.const_data_ptr<std::int64_t>();
  std::uint64_t largest = 0;  // a negative one is larger than any
  for (std::int64_t i = 0; i < indices.numel(); ++i) largest = std::max(largest, std::uint64_t(index[i]));
  TORCH_CHECK(indices.numel() == 0 || largest < std::uint64_t(n), "mdplugin: ", name, ": expected indices below ", n,
              ", got ", std::int64_t(largest));
}

template <typename T>
std::vector<const T *> pointers(const Tensors &tensors) {
  std::vector<const T *> result;
  for (const Tensor &t : tensors) {
    require(t, c10::CppTypeToScalarType<T>::value, "feature");
    result.push_back(t.const_data_ptr<T>());
  }
  return result;
}

template <typename T>
std::vector<T *> mutable_pointers(const Tensors &tensors) {
  std::vector<T *> result;
  for (const Tensor &t : tensors) result.push_back(t.mutable_data_ptr<T>());
  return result;
}

inline Tensors allocate(std::int64_t n, const std::vector<std::int64_t> &rows, std::int64_t channels, const Tensor &like) {
  Tensors result;
  for (const std::int64_t r : rows) result.push_back(at::empty({n, r, channels}, like.options()));
  return result;
}

}  // namespace mdplugin
