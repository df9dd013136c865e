// SPDX-License-Identifier: MIT
// A_i,(p l3 m3),k = sum_j R_p,k(r_ij) sum_(m1 m2) C u_j,(l1 m1),k Y_(l2 m2)(r_ij), and its reverse.
//
// Per edge the couplings are first summed over m2: T_p[m1, m3] = sum C Y. Then every path is a small matrix
// product T^t u, with the channels in the vector lanes. Nothing of size edges x paths x channels is stored: R
// is interpolated into a buffer that stays in the first-level cache.
#pragma once
#include "kernels.h"
#include "vector.h"

namespace mdplugin::MDPLUGIN_ISA {

constexpr int batch = 16;         // edges whose T are formed together, one per lane
constexpr int max_entries = 1024;  // of T, all paths together
constexpr int max_functions = 16384;

/// Where an edge lies in the table, and the weights of R and dR/dr there.
template <typename T>
struct Knots {
  const T *rows;
  T w[max_spline], dw[max_spline];
};

template <typename T>
inline Knots<T> locate(const RadialTable<T> &table, const T *r, std::int64_t edge) {
  const double x = double(r[edge]) * table.inverse_step;
  const std::int64_t last = table.n_rows - table.size;
  std::int64_t i = std::int64_t(x);
  if (i > last) i = last;
  if (!(i >= 0)) i = 0;
  const double t = x - double(i);
  const double inside = t <= 1.0;  // beyond r_max, where an edge of rounding's width may lie, R is zero
  Knots<T> knots;
  const std::int64_t pair = table.pair ? table.pair[edge] : 0;
  knots.rows = table.coefficients + (pair * table.n_rows + i) * table.n_functions;
  for (int j = 0; j < table.size; ++j) {
    const double *piece = table.pieces + j * table.size;
    double w = piece[table.size - 1], dw = 0;
    for (int k = table.size - 2; k >= 0; --k) {
      dw = dw * t + w;
      w = w * t + piece[k];
    }
    knots.w[j] = T(w * inside);
    knots.dw[j] = T(dw * inside * table.inverse_step);
  }
  return knots;
}

template <typename T, int size, bool with_derivative>
inline void interpolate_rows(const Knots<T> &knots, std::int64_t stride, std::int64_t n, T *R, T *dR) {
  for (std::int64_t f = 0; f < n; f += lanes<T>) {
    Vector<T> row = load(knots.rows + f);
    Vector<T> value = knots.w[0] * row, slope = knots.dw[0] * row;
#pragma GCC unroll 6
    for (int j = 1; j < size; ++j) {
      row = load(knots.rows + j * stride + f);
      value += knots.w[j] * row;
      if constexpr (with_derivative) slope += knots.dw[j] * row;
    }
    store(R + f, value);
    if constexpr (with_derivative) store(dR + f, slope);
  }
}

/// R (n) and, if asked for, dR/dr (n) of one edge.
template <typename T, bool with_derivative>
inline void interpolate(const RadialTable<T> &table, const Knots<T> &knots, std::int64_t n, T *R, T *dR) {
  if (table.size == 4)
    interpolate_rows<T, 4, with_derivative>(knots, table.n_functions, n, R, dR);
  else
    interpolate_rows<T, 6, with_derivative>(knots, table.n_functions, n, R, dR);
}

/// T[entry * batch + lane] of up to `batch` edges.
template <typename T>
inline void form_couplings(const ConvolutionPlan &plan, const EdgeWalk<T> &walk, const std::int64_t *edges, int count,
                           T *result) {
  alignas(64) T Y[(max_degree + 1) * (max_degree + 1) * batch];
  for (int e = 0; e < batch; ++e) {
    const T *row = walk.Y + edges[e < count ? e : 0] * plan.n_y;
    for (int y = 0; y < plan.n_y; ++y) Y[y * batch + e] = row[y];
  }
  std::memset(result, 0, sizeof(T) * plan.n_entries * batch);
  for (int c = 0; c < plan.n_couplings; ++c) {
    T *out = result + plan.couplings[c].entry * batch;
    const T *y = Y + plan.couplings[c].y * batch;
    const T value = T(plan.couplings[c].value);
    for (int e = 0; e < batch; e += lanes<T>) store(out + e, load(out + e) + value * load(y + e));
  }
}

/// What a path's kernel sees of n edges of one center.
template <typename T, int n>
struct PathArguments {
  std::int64_t channels, source_stride, target_stride;
  const T *R[n], *u[n], *t[n];
  T *A;
};

template <typename T, int l1, int l3, bool diagonal, int n>
void forward_path(const PathArguments<T, n> &a) {
  constexpr int n1 = 2 * l1 + 1, n3 = 2 * l3 + 1;
  for (std::int64_t c = 0; c < a.channels; c += lanes<T>) {
    Vector<T> A[n3];
#pragma GCC unroll 9
    for (int m = 0; m < n3; ++m) A[m] = load(a.A + m * a.target_stride + c);
#pragma GCC unroll 2
    for (int e = 0; e < n; ++e) {
      const Vector<T> R = load(a.R[e] + c);
      const T *t = a.t[e];
      const T *u = a.u[e] + c;
      if constexpr (diagonal) {
        const Vector<T> s = t[0] * R;
#pragma GCC unroll 9
        for (int m = 0; m < n3; ++m) A[m] += s * load(u + m * a.source_stride);
      } else if constexpr (n1 <= n3) {
#pragma GCC unroll 9
        for (int k = 0; k < n1; ++k) {
          const Vector<T> s = R * load(u + k * a.source_stride);
#pragma GCC unroll 9
          for (int m = 0; m < n3; ++m) A[m] += t[(k * n3 + m) * batch] * s;
        }
      } else {
#pragma GCC unroll 9
        for (int m = 0; m < n3; ++m) {
          Vector<T> s = t[m * batch] * load(u);
#pragma GCC unroll 9
          for (int k = 1; k < n1; ++k) s += t[(k * n3 + m) * batch] * load(u + k * a.source_stride);
          A[m] += R * s;
        }
      }
    }
#pragma GCC unroll 9
    for (int m = 0; m < n3; ++m) store(a.A + m * a.target_stride + c, A[m]);
  }
}

/// One edge of the reverse: gu += R T g; gT[entry] = lanes of R u g; adds lanes of dR/dr u T g to gr.
template <typename T>
struct ReverseArguments {
  std::int64_t channels, source_stride, target_stride;
  const T *R, *dR, *u, *t, *g;
  T *gu;
  Vector<T> *gT, *gr;
};

template <typename T, int l1, int l3, bool diagonal, bool with_gu>
void reverse_path(const ReverseArguments<T> &a) {
  constexpr int n1 = 2 * l1 + 1, n3 = 2 * l3 + 1, n_entries = diagonal ? 1 : n1 * n3;
  Vector<T> gT[n_entries], gr = *a.gr;
#pragma GCC unroll 64
  for (int k = 0; k < n_entries; ++k) gT[k] = Vector<T>{};
  for (std::int64_t c = 0; c < a.channels; c += lanes<T>) {
    const Vector<T> R = load(a.R + c);
    Vector<T> dot = {};
    if constexpr (diagonal) {
#pragma GCC unroll 9
      for (int m = 0; m < n3; ++m) {
        const Vector<T> g = load(a.g + m * a.target_stride + c);
        dot += g * load(a.u + m * a.source_stride + c);
        if constexpr (with_gu) {
          T *gu = a.gu + m * a.source_stride + c;
          store(gu, load(gu) + (a.t[0] * R) * g);
        }
      }
      gT[0] += R * dot;
      dot *= a.t[0];
    } else {
      Vector<T> g[n3];
#pragma GCC unroll 9
      for (int m = 0; m < n3; ++m) g[m] = load(a.g + m * a.target_stride + c);
#pragma GCC unroll 9
      for (int k = 0; k < n1; ++k) {
        const Vector<T> u = load(a.u + k * a.source_stride + c), s = R * u;
        Vector<T> Tg = a.t[k * n3 * batch] * g[0];
#pragma GCC unroll 9
        for (int m = 1; m < n3; ++m) Tg += a.t[(k * n3 + m) * batch] * g[m];
#pragma GCC unroll 9
        for (int m = 0; m < n3; ++m) gT[k * n3 + m] += s * g[m];
        dot += u * Tg;
        if constexpr (with_gu) {
          T *gu = a.gu + k * a.source_stride + c;
          store(gu, load(gu) + R * Tg);
        }
      }
    }
    gr += load(a.dR + c) * dot;
  }
#pragma GCC unroll 64
  for (int k = 0; k < n_entries; ++k) a.gT[k] = gT[k];
  *a.gr = gr;
}

/// The kernel of a path by its degrees: l1 up to 3, l3 up to 4.
template <typename T, template <typename, int, int, bool> class Kernel>
struct PathTable {
  using Function = decltype(&Kernel<T, 0, 0, false>::run);
  Function full[4][5] = {
      {&Kernel<T, 0, 0, false>::run, &Kernel<T, 0, 1, false>::run, &Kernel<T, 0, 2, false>::run,
       &Kernel<T, 0, 3, false>::run, &Kernel<T, 0, 4, false>::run},
      {&Kernel<T, 1, 0, false>::run, &Kernel<T, 1, 1, false>::run, &Kernel<T, 1, 2, false>::run,
       &Kernel<T, 1, 3, false>::run, &Kernel<T, 1, 4, false>::run},
      {&Kernel<T, 2, 0, false>::run, &Kernel<T, 2, 1, false>::run, &Kernel<T, 2, 2, false>::run,
       &Kernel<T, 2, 3, false>::run, &Kernel<T, 2, 4, false>::run},
      {&Kernel<T, 3, 0, false>::run, &Kernel<T, 3, 1, false>::run, &Kernel<T, 3, 2, false>::run,
       &Kernel<T, 3, 3, false>::run, &Kernel<T, 3, 4, false>::run}};
  Function diagonal[4] = {&Kernel<T, 0, 0, true>::run, &Kernel<T, 1, 1, true>::run, &Kernel<T, 2, 2, true>::run,
                          &Kernel<T, 3, 3, true>::run};

  Function find(const Path &path) const { return path.l2 == 0 ? diagonal[path.l1] : full[path.l1][path.l3]; }
};

template <typename T, int l1, int l3, bool diagonal>
struct ForwardOne {
  static void run(const PathArguments<T, 1> &a) { forward_path<T, l1, l3, diagonal, 1>(a); }
};
template <typename T, int l1, int l3, bool diagonal>
struct ForwardTwo {
  static void run(const PathArguments<T, 2> &a) { forward_path<T, l1, l3, diagonal, 2>(a); }
};
template <typename T, int l1, int l3, bool diagonal>
struct ReverseWithSource {
  static void run(const ReverseArguments<T> &a) { reverse_path<T, l1, l3, diagonal, true>(a); }
};
template <typename T, int l1, int l3, bool diagonal>
struct ReverseEdgeOnly {
  static void run(const ReverseArguments<T> &a) { reverse_path<T, l1, l3, diagonal, false>(a); }
};

/// Start of a path's rows of node `row` in its block, and the stride between its components.
inline std::int64_t source_start(const Path &p, std::int64_t row, std::int64_t channels) {
  return (row * (2 * p.l1 + 1) * p.source_copies + p.source_copy) * channels;
}
inline std::int64_t target_start(const Path &p, std::int64_t row, std::int64_t channels) {
  return (row * (2 * p.l3 + 1) * p.target_copies + p.target_copy) * channels;
}

/// All paths of `n` edges with one target row.
template <typename T, int n, typename Table>
inline void forward_edges(const ConvolutionPlan &plan, const RadialTable<T> &radial, const EdgeWalk<T> &walk,
                          const Table &table, const std::int64_t *edges, const T *couplings, std::int64_t target,
                          const T *const *u, T *const *A, T *R) {
  const std::int64_t n_functions = std::int64_t(plan.n_paths) * plan.channels;
  for (int e = 0; e < n; ++e)
    interpolate<T, false>(radial, locate(radial, walk.r, edges[e]), n_functions, R + e * n_functions, nullptr);
  for (int k = 0; k < plan.n_paths; ++k) {
    const Path &p = plan.paths[k];
    PathArguments<T, n> a;
    a.channels = plan.channels;
    a.source_stride = std::int64_t(p.source_copies) * plan.channels;
    a.target_stride = std::int64_t(p.target_copies) * plan.channels;
    a.A = A[p.target] + target_start(p, target, plan.channels);
    for (int e = 0; e < n; ++e) {
      a.R[e] = R + e * n_functions + std::int64_t(k) * plan.channels;
      a.u[e] = u[p.source] + source_start(p, walk.source_row[edges[e]], plan.channels);
      a.t[e] = couplings + p.entry * batch + e;
    }
    table.find(p)(a);
  }
}

/// The edges [first, first + count) of a walk, as edge indices.
template <typename T>
inline void list_edges(const EdgeWalk<T> &walk, std::int64_t first, int count, std::int64_t *edges) {
  for (int e = 0; e < count; ++e) edges[e] = walk.order ? walk.order[first + e] : first + e;
}

/// A of the centers [begin, end), which are the receivers; A must be zero before.
template <typename T>
void convolve(const ConvolutionPlan &plan, const RadialTable<T> &radial, const EdgeWalk<T> &walk, std::int64_t begin,
              std::int64_t end, const T *const *u, T *const *A) {
  static const PathTable<T, ForwardOne> one;
  static const PathTable<T, ForwardTwo> two;
  alignas(64) T couplings[max_entries * batch];
  alignas(64) T R[2 * max_functions];
  std::int64_t edges[batch];
  for (std::int64_t center = begin; center < end; ++center)
    for (std::int64_t first = walk.offsets[center]; first < walk.offsets[center + 1]; first += batch) {
      const std::int64_t left = walk.offsets[center + 1] - first;
      const int count = left < batch ? int(left) : batch;
      list_edges(walk, first, count, edges);
      form_couplings(plan, walk, edges, count, couplings);
      int e = 0;
      for (; e + 2 <= count; e += 2)
        forward_edges<T, 2>(plan, radial, walk, two, edges + e, couplings + e, center, u, A, R);
      if (e < count) forward_edges<T, 1>(plan, radial, walk, one, edges + e, couplings + e, center, u, A, R);
    }
}

/// Adds gT to gY through the couplings: per lane first, summed over lanes last.
template <typename T>
inline void reverse_couplings(const ConvolutionPlan &plan, const Vector<T> *gT, T *gY) {
  Vector<T> g[(max_degree + 1) * (max_degree + 1)];
  for (int y = 0; y < plan.n_y; ++y) g[y] = Vector<T>{};
  for (int c = 0; c < plan.n_couplings; ++c)
    g[plan.couplings[c].y] += T(plan.couplings[c].value) * gT[plan.couplings[c].entry];
  for (int y = 0; y < plan.n_y; ++y) gY[y] += sum<T>(g[y]);
}

/// Adds to gr and gY of every edge of the centers, and to gu (null: not wanted) of the edges' source rows; with
/// gu the centers must be the source rows, so that each is written from one center alone.
template <typename T>
void reverse_convolve(const ConvolutionPlan &plan, const RadialTable<T> &radial, const EdgeWalk<T> &walk,
                      std::int64_t begin, std::int64_t end, const T *const *u, const T *const *gA, T *const *gu, T *gr,
                      T *gY) {
  static const PathTable<T, ReverseWithSource> with_source;
  static const PathTable<T, ReverseEdgeOnly> edge_only;
  const auto table_of = [&](const Path &p) { return gu ? with_source.find(p) : edge_only.find(p); };
  const std::int64_t n_functions = std::int64_t(plan.n_paths) * plan.channels;
  alignas(64) T couplings[max_entries * batch];
  alignas(64) T R[2 * max_functions];
  Vector<T> gT[max_entries];
  std::int64_t edges[batch];
  for (std::int64_t center = begin; center < end; ++center)
    for (std::int64_t first = walk.offsets[center]; first < walk.offsets[center + 1]; first += batch) {
      const std::int64_t left = walk.offsets[center + 1] - first;
      const int count = left < batch ? int(left) : batch;
      list_edges(walk, first, count, edges);
      form_couplings(plan, walk, edges, count, couplings);
      for (int e = 0; e < count; ++e) {
        const std::int64_t edge = edges[e], source = walk.source_row[edge], target = walk.target_row[edge];
        interpolate<T, true>(radial, locate(radial, walk.r, edge), n_functions, R, R + n_functions);
        Vector<T> gr_lanes = {};
        for (int k = 0; k < plan.n_paths; ++k) {
          const Path &p = plan.paths[k];
          const std::int64_t offset = std::int64_t(k) * plan.channels, start = source_start(p, source, plan.channels);
          table_of(p)({plan.channels, std::int64_t(p.source_copies) * plan.channels,
                       std::int64_t(p.target_copies) * plan.channels, R + offset, R + n_functions + offset,
                       u[p.source] + start, couplings + p.entry * batch + e,
                       gA[p.target] + target_start(p, target, plan.channels), gu ? gu[p.source] + start : nullptr,
                       gT + p.entry, &gr_lanes});
        }
        gr[edge] += sum<T>(gr_lanes);
        reverse_couplings<T>(plan, gT, gY + edge * plan.n_y);
      }
    }
}

/// One column of the table (the density of Density blocks) and its derivative at every edge.
template <typename T>
void radial_function(const RadialTable<T> &table, std::int64_t column, std::int64_t begin, std::int64_t end,
                     const T *r, T *value, T *derivative) {
  for (std::int64_t edge = begin; edge < end; ++edge) {
    const Knots<T> knots = locate(table, r, edge);
    T f = 0, df = 0;
    for (int j = 0; j < table.size; ++j) {
      const T c = knots.rows[j * table.n_functions + column];
      f += knots.w[j] * c;
      df += knots.dw[j] * c;
    }
    value[edge] = f;
    derivative[edge] = df;
  }
}

}  // namespace mdplugin::MDPLUGIN_ISA
