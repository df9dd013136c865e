// SPDX-License-Identifier: MIT
// Symmetric contraction: per species and channel polynomials in the components of m (MACE, eqs. 10-11),
//
//     B_M,c = sum_terms sum_q W[species, q, c] sum_t U[M, q, t] prod_(factors of monomial t) m_c,
//
// evaluated for one vector of channels at a time: all monomials once, then the sparse couplings. U is the same
// for all species and channels and stays in the first-level cache.
#pragma once
#include "kernels.h"
#include "vector.h"

namespace mdplugin::MDPLUGIN_ISA {

constexpr int max_rows = 64;        // of m: (max_degree + 1)², of both parities
constexpr int max_monomials = 8192;  // of one term
constexpr int max_pairs = 1024;     // M x paths of one term

template <typename T>
inline Vector<T> product(const ContractionTerm &term, int t, const Vector<T> *m) {
  const std::int32_t *factors = term.monomials + t * term.degree;
  Vector<T> value = m[factors[0]];
  for (int k = 1; k < term.degree; ++k) value *= m[factors[k]];
  return value;
}

/// One degree and one output irrep: adds to its 2L + 1 rows of B, `stride` apart.
template <typename T>
inline void contract_term(const ContractionTerm &term, const T *W, int channels, const Vector<T> *m, T *B,
                          Vector<T> *products) {
  for (int t = 0; t < term.n_monomials; ++t) products[t] = product<T>(term, t, m);
  for (int M = 0; M < term.n_m; ++M) {
    Vector<T> value = load(B + std::int64_t(M) * channels);
    for (int q = 0; q < term.n_paths; ++q) {
      const int pair = M * term.n_paths + q;
      Vector<T> even = {}, odd = {};  // two chains hide the latency of the additions
      int k = term.path_offsets[pair];
      for (; k + 1 < term.path_offsets[pair + 1]; k += 2) {
        even += T(term.values[k]) * products[term.monomial_of[k]];
        odd += T(term.values[k + 1]) * products[term.monomial_of[k + 1]];
      }
      if (k < term.path_offsets[pair + 1]) even += T(term.values[k]) * products[term.monomial_of[k]];
      value += load(W + std::int64_t(q) * channels) * (even + odd);
    }
    store(B + std::int64_t(M) * channels, value);
  }
}

template <typename T>
inline void reverse_term(const ContractionTerm &term, const T *W, int channels, const Vector<T> *m, const T *gB,
                         Vector<T> *gm, Vector<T> *pairs) {
  for (int M = 0; M < term.n_m; ++M) {
    const Vector<T> g = load(gB + std::int64_t(M) * channels);
    for (int q = 0; q < term.n_paths; ++q) pairs[M * term.n_paths + q] = g * load(W + std::int64_t(q) * channels);
  }
  for (int t = 0; t < term.n_monomials; ++t) {
    Vector<T> g = {};
    for (int k = term.monomial_offsets[t]; k < term.monomial_offsets[t + 1]; ++k)
      g += T(term.values_by_monomial[k]) * pairs[term.pair_of[k]];
    const std::int32_t *factors = term.monomials + t * term.degree;
    Vector<T> before = g;  // g times the factors before k; the ones after k come from the inner loop
    for (int k = 0; k < term.degree; ++k) {
      Vector<T> slope = before;
      for (int j = k + 1; j < term.degree; ++j) slope *= m[factors[j]];
      gm[factors[k]] += slope;
      before *= m[factors[k]];
    }
  }
}

/// Rows of m of one node and one vector of channels, blocks one after the other.
template <typename T>
inline void load_rows(int n_blocks, const int *rows, int channels, std::int64_t node, int c, const T *const *x,
                      Vector<T> *out) {
  for (int b = 0; b < n_blocks; ++b)
    for (int row = 0; row < rows[b]; ++row) *out++ = load(x[b] + (node * rows[b] + row) * channels + c);
}

/// Adds to B of the nodes [begin, end).
template <typename T>
void contract(int n_terms, const ContractionTerm *terms, const ContractionWeights<T> *weights, int n_blocks,
              const int *rows, int channels, const std::int64_t *species, std::int64_t begin, std::int64_t end,
              const T *const *m, T *const *B) {
  Vector<T> values[max_rows];
  static thread_local Vector<T> products[max_monomials];
  for (std::int64_t node = begin; node < end; ++node)
    for (int c = 0; c < channels; c += lanes<T>) {
      load_rows<T>(n_blocks, rows, channels, node, c, m, values);
      for (int k = 0; k < n_terms; ++k) {
        const ContractionTerm &term = terms[k];
        const T *W = weights[k].weights + species[node] * term.weight_species_stride + c;
        contract_term<T>(term, W, channels, values, B[term.target] + node * term.n_m * channels + c, products);
      }
    }
}

/// gm of the nodes [begin, end), which is overwritten.
template <typename T>
void reverse_contract(int n_terms, const ContractionTerm *terms, const ContractionWeights<T> *weights, int n_blocks,
                      const int *rows, int channels, const std::int64_t *species, std::int64_t begin,
                      std::int64_t end, const T *const *m, const T *const *gB, T *const *gm) {
  Vector<T> values[max_rows], gradients[max_rows];
  static thread_local Vector<T> pairs[max_pairs];
  for (std::int64_t node = begin; node < end; ++node)
    for (int c = 0; c < channels; c += lanes<T>) {
      load_rows<T>(n_blocks, rows, channels, node, c, m, values);
      for (auto &g : gradients) g = Vector<T>{};
      for (int k = 0; k < n_terms; ++k) {
        const ContractionTerm &term = terms[k];
        const T *W = weights[k].weights + species[node] * term.weight_species_stride + c;
        reverse_term<T>(term, W, channels, values, gB[term.target] + node * term.n_m * channels + c, gradients,
                        pairs);
      }
      const Vector<T> *g = gradients;
      for (int b = 0; b < n_blocks; ++b)
        for (int row = 0; row < rows[b]; ++row) store(gm[b] + (node * rows[b] + row) * channels + c, *g++);
    }
}

}  // namespace mdplugin::MDPLUGIN_ISA
