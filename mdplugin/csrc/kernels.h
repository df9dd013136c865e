// SPDX-License-Identifier: MIT
// The kernels' border: plain pointers and sizes, no torch. One table of functions per instruction set.
//
// Layouts (docs/lowering.md): a feature is one array per irrep block, (nodes, 2l + 1, copies, channels) with
// channels innermost and padded to a multiple of `channel_multiple`.
#pragma once
#include <cstdint>

namespace mdplugin {

constexpr int channel_multiple = 16;  // floats in the widest vector
constexpr int max_degree = 4;         // of Y_lm
constexpr int max_spline = 6;         // coefficients that one interval of a radial table needs

/// One tensor-product path: sender irrep l1 x Y_l2 -> l3; its couplings fill `n1 * n3` entries from `entry`
/// on, or one entry where l2 = 0, which does not mix components.
struct Path {
  int l1, l2, l3;
  int source, source_copy, source_copies;
  int target, target_copy, target_copies;
  int entry;
};

/// T[entry] += value * Y[y].
struct Coupling {
  int entry, y;
  double value;
};

struct ConvolutionPlan {
  int channels, n_y, n_entries, n_paths, n_couplings;
  const Path *paths;
  const Coupling *couplings;
};

/// R_f(r) = sum_j w_j(t) c[(i + j), f] on interval i = floor(r / step) of uniform knots, t = r / step - i.
template <typename T>
struct RadialTable {
  const T *coefficients;  // (pairs, n_rows, n_functions)
  std::int64_t n_rows, n_functions;
  int size;                               // weights per interval
  double inverse_step;
  double pieces[max_spline * max_spline];  // w_j(t) = sum_k pieces[j, k] t^k
  const std::int64_t *pair;                // (n_edges,), or null where all pairs share one table
};

/// Edges grouped by a center: edges order[offsets[c]] ... order[offsets[c + 1] - 1]; order null: the identity.
template <typename T>
struct EdgeWalk {
  const std::int64_t *offsets, *order;
  const T *r, *Y;                           // (n_edges,), (n_edges, n_y)
  const std::int64_t *source_row, *target_row;  // (n_edges,) rows of u and of A
};

/// Terms of a symmetric contraction: for target block b and degree nu, B_M += sum_q W[q] sum U[M, q, t] prod_t.
struct ContractionTerm {
  int target, degree, n_monomials, n_paths, n_m;
  const std::int32_t *monomials;   // (n_monomials, degree) rows of m
  // couplings sorted by (M, path); `path_offsets` (n_m * n_paths + 1)
  const std::int32_t *path_offsets, *monomial_of;
  const double *values;
  // the same couplings sorted by monomial; `monomial_offsets` (n_monomials + 1), index M * n_paths + path
  const std::int32_t *monomial_offsets, *pair_of;
  const double *values_by_monomial;
  std::int64_t weight_species_stride;  // 0 where all species share the weights
};

template <typename T>
struct ContractionWeights {
  const T *weights;  // (n_species or 1, n_paths, channels)
};

template <typename T>
struct Kernels {
  void (*edge_geometry)(int l_max, std::int64_t begin, std::int64_t end, const double *vectors, T *r, T *Y);
  void (*reverse_edge_geometry)(int l_max, std::int64_t begin, std::int64_t end, const double *vectors,
                                const T *gr, const T *gY, double scale, double *edge_force);
  void (*convolve)(const ConvolutionPlan &, const RadialTable<T> &, const EdgeWalk<T> &, std::int64_t begin,
                   std::int64_t end, const T *const *u, T *const *A);
  void (*reverse_convolve)(const ConvolutionPlan &, const RadialTable<T> &, const EdgeWalk<T> &,
                           std::int64_t begin, std::int64_t end, const T *const *u, const T *const *gA,
                           T *const *gu, T *gr, T *gY);
  void (*radial_function)(const RadialTable<T> &, std::int64_t column, std::int64_t begin, std::int64_t end,
                          const T *r, T *value, T *derivative);
  void (*contract)(int n_terms, const ContractionTerm *, const ContractionWeights<T> *, int n_source_blocks,
                   const int *source_rows, int channels, const std::int64_t *species, std::int64_t begin,
                   std::int64_t end, const T *const *m, T *const *B);
  void (*reverse_contract)(int n_terms, const ContractionTerm *, const ContractionWeights<T> *,
                           int n_source_blocks, const int *source_rows, int channels,
                           const std::int64_t *species, std::int64_t begin, std::int64_t end,
                           const T *const *m, const T *const *gB, T *const *gm);
};

/// The kernels for the widest instruction set of this processor.
template <typename T>
const Kernels<T> &kernels();

}  // namespace mdplugin
