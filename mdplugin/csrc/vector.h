// SPDX-License-Identifier: MIT
// A SIMD vector of the machine's width, by the compiler's own vector extension: arithmetic operators
// work on it, broadcasts a scalar, and the compiler chooses the instructions.
//
// Kernels are compiled once per instruction set, each in its own namespace MDPLUGIN_ISA (native.py), so
// nothing here may be shared between the copies: no std templates, whose out-of-line bodies the linker merges.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define MDPLUGIN_VECTOR_BYTES 64
#else
#define MDPLUGIN_VECTOR_BYTES 32
#endif

namespace mdplugin::MDPLUGIN_ISA {

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(MDPLUGIN_VECTOR_BYTES)));
};

template <typename T>
using Vector = typename VectorOf<T>::type;

template <typename T>
constexpr int lanes = MDPLUGIN_VECTOR_BYTES / sizeof(T);

template <typename T>
inline Vector<T> load(const T *p) {
  Vector<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
inline void store(T *p, Vector<T> v) {
  std::memcpy(p, &v, sizeof v);
}

/// Sum over the lanes, in a fixed tree.
template <typename T>
inline T sum(Vector<T> v) {
  T part[lanes<T>];
  std::memcpy(part, &v, sizeof v);
  for (int width = lanes<T> / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}

}  // namespace mdplugin::MDPLUGIN_ISA
