// SPDX-License-Identifier: MIT
// A SIMD vector of the machine's width, by the compiler's own vector extension: arithmetic operators
// work on it, broadcasts a scalar, and the compiler chooses the instructions.
//
// Kernels are compiled once per instruction set, each in its own namespace MDPLUGIN_ISA (native.py), so
// nothing here may be shared between the copies: no std templates, whose out-of-line bodies the linker merges.
#pragma once
#include <immintrin.h>

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

/// As many words, shorts or bytes as a vector of floats has lanes.
typedef std::int32_t Words __attribute__((vector_size(MDPLUGIN_VECTOR_BYTES)));
typedef float Floats __attribute__((vector_size(MDPLUGIN_VECTOR_BYTES)));
typedef std::int16_t Shorts __attribute__((vector_size(MDPLUGIN_VECTOR_BYTES / 2)));
typedef std::uint16_t UnsignedShorts __attribute__((vector_size(MDPLUGIN_VECTOR_BYTES / 2)));
typedef std::uint8_t UnsignedBytes __attribute__((vector_size(MDPLUGIN_VECTOR_BYTES / 4)));

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

inline Words load_words(const std::int32_t *p) {
  Words v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <typename T>
struct IndexOf;
template <>
struct IndexOf<float> {
  using type = std::int32_t;
};
template <>
struct IndexOf<double> {
  using type = std::int64_t;
};

/// sums[i] = sum over the lanes of v[i] for as many vectors as a vector has lanes, in a fixed tree: neighbouring
/// lanes of neighbouring vectors are added until one vector is left. Overwrites v.
template <typename T>
inline void sum_each(Vector<T> *v, T *sums) {
  typedef typename IndexOf<T>::type Indices __attribute__((vector_size(MDPLUGIN_VECTOR_BYTES)));
  Indices even, odd;
#pragma GCC unroll 16
  for (int i = 0; i < lanes<T>; ++i) {
    even[i] = 2 * i;
    odd[i] = 2 * i + 1;
  }
#pragma GCC unroll 4
  for (int n = lanes<T> / 2; n > 0; n /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i)
      v[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], even) + __builtin_shuffle(v[2 * i], v[2 * i + 1], odd);
  store(sums, v[0]);
}

}  // namespace mdplugin::MDPLUGIN_ISA
