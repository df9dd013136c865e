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

/// T[entry] += value * Y[y]; sorted by y.
struct Coupling {
  int entry, y;
  double value;
  float single;  // value in float32: kernels do not convert it for every edge
};

/// Blocks of rows that lie one after the other: block b has rows[b].
struct RowBlocks {
  int n;
  const int *rows;
};

struct ConvolutionPlan {
  int channels, n_y, n_entries, n_paths, n_couplings;
  const Path *paths;
  const Coupling *couplings;
  const int *first_coupling;  // (n_y + 1): those of Y[y] are [first_coupling[y], first_coupling[y + 1])
  RowBlocks target;
};

/// How the knots of a radial table are kept.
enum class Storage : int { base, fixed16, fixed8, brain16, half16, dot16 };

/// R_f(r) = sum_j w_j(t) c[(i + j), f] on interval i = floor(r / step) of uniform knots, t = r / step - i.
///
/// Functions are stored in blocks: block b holds the channels [b width, (b + 1) width) of all paths, path after path. So
/// what one edge reads lies together, and what the next one reads overlaps with it if edges are sorted by r.
/// Knots of 16-bit fixed point lie two to a word, so that one load serves two vectors: word i of a group of 32 functions
/// holds function i below and function 16 + i above. Both are converted where they lie in the word, 2^16 too large.
/// For integer sums (dot16) a word holds the function's knot in this row below and in the next one above.
template <typename T>
struct RadialTable {
  const char *knots;  // (pairs, n_blocks, n_rows) rows of row_bytes
  Storage storage;
  std::int64_t n_blocks, n_rows, n_functions;  // functions of one block: paths x width
  std::int64_t row_bytes;
  const double *row_scale;                // (pairs, n_rows), multiplies the knots
  int size;                               // weights per interval
  double inverse_step;
  double pieces[max_spline * max_spline];  // w_j(t) = sum_k pieces[j, k] t^k
  const std::int64_t *pair;                // (n_edges,), or null where all pairs share one table
};

/// Edges sorted by receiver: those of receiver i are order[offsets[i]] ... order[offsets[i + 1] - 1].
template <typename T>
struct EdgeWalk {
  const std::int64_t *offsets, *order;
  const T *r, *Y;                  // (n_edges,), (n_edges, n_y)
  const std::int64_t *source_row;  // (n_edges,) row of u
};

/// One product of rows of m: that of the last step with one factor less, times m[factor]; `degree` 0: one. Its branches
/// are [first, last).
struct Step {
  std::int32_t factor, degree, first, last;
};

/// B[target] += product * sum of D[leaf] * m[factors[leaf]] over the leaves [first, last), which are at least one.
struct Branch {
  std::int32_t target, first, last;
};

/// A symmetric contraction as polynomials: products are visited depth first, so that those above lie on a short stack.
struct ContractionPlan {
  int channels, n_steps, n_leaves, n_rows, n_targets;
  RowBlocks source, target;
  std::int64_t species_stride;  // blocks of `channel_multiple` channels per species; 0 where all species share D
  const Step *steps;
  const Branch *branches;
  const std::int32_t *factors;  // (n_leaves)
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
                           const std::int32_t *gu_row, T *const *gu, T *gr, T *gY);
  void (*add_rows)(std::int64_t size, const std::int64_t *offsets, const T *const *rows, std::int64_t begin,
                   std::int64_t end, T *out);
  void (*radial_function)(const RadialTable<T> &, std::int64_t begin, std::int64_t end, const T *r, T *value,
                          T *derivative);
  // coefficients D: (species or 1, channels / channel_multiple, n_leaves, channel_multiple)
  void (*contract)(const ContractionPlan &, const T *coefficients, const std::int64_t *species, std::int64_t begin,
                   std::int64_t end, const T *const *m, T *const *B);
  void (*reverse_contract)(const ContractionPlan &, const T *coefficients, const std::int64_t *species,
                           std::int64_t begin, std::int64_t end, const T *const *m, const T *const *gB, T *const *gm);
};

/// The kernels for the instruction set that `dispatch.cpp` chooses.
template <typename T>
const Kernels<T> &kernels();

}  // namespace mdplugin
