// SPDX-License-Identifier: MIT
// A_i,(p l3 m3),k = sum_j R_p,k(r_ij) sum_(m1 m2) C u_j,(l1 m1),k Y_(l2 m2)(r_ij), and its reverse.
//
// The edges of a receiver are taken in batches (kernel_edges.h). Per path, T^t u is a small matrix product with the
// channels in the vector lanes. Nothing of size edges x paths x channels is stored: R is interpolated into a
// buffer that stays in the first-level cache.
#pragma once
#include "kernel_edges.h"

namespace mdplugin::MDPLUGIN_ISA {

constexpr int max_functions = 16384;  // of one edge: paths x channels

/// What a path's kernel sees of the edges of one batch and of some channels.
template <typename T>
struct ForwardArguments {
  int n;                                     // edges
  std::int64_t channels;                     // of this block
  std::int64_t source_stride, target_stride;  // between components
  std::int64_t R_stride, u_offset;            // between edges; of the path's copy and block in a source row
  const T *R, *t;
  const T *const *u;
  T *A;
};

template <typename T, int l1, int l3, bool diagonal>
void forward_path(const ForwardArguments<T> &a) {
  constexpr int n1 = 2 * l1 + 1, n3 = 2 * l3 + 1;
  for (std::int64_t c = 0; c < a.channels; c += lanes<T>) {
    Vector<T> A[n3];
#pragma GCC unroll 9
    for (int m = 0; m < n3; ++m) A[m] = load(a.A + m * a.target_stride + c);
    for (int e = 0; e < a.n; ++e) {
      const Vector<T> R = load(a.R + e * a.R_stride + c);
      const T *t = a.t + e, *u = a.u[e] + a.u_offset + c;
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
  std::int64_t channels, width, n_functions;  // R of a block of `width` channels lies `n_functions` after the last one
  std::int64_t source_stride, target_stride;
  const T *R, *dR, *u, *t, *g;
  T *gu;
  Vector<T> *gT, *gr;
};

template <typename T, int l1, int l3, bool diagonal, bool with_gu>
void reverse_path(const ReverseArguments<T> &arguments) {
  constexpr int n1 = 2 * l1 + 1, n3 = 2 * l3 + 1, n_entries = diagonal ? 1 : n1 * n3;
  const ReverseArguments<T> a = arguments;  // a copy, which the stores below cannot change
  Vector<T> gT[n_entries], gr = *a.gr;
#pragma GCC unroll 64
  for (int k = 0; k < n_entries; ++k) gT[k] = Vector<T>{};
  for (std::int64_t block = 0, c = 0; c < a.channels; ++block) {
    const T *all_R = a.R + block * a.n_functions, *all_dR = a.dR + block * a.n_functions;
    for (std::int64_t i = 0; i < a.width; i += lanes<T>, c += lanes<T>) {
      const Vector<T> R = load(all_R + i);
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
      gr += load(all_dR + i) * dot;
    }
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
struct Forward {
  static void run(const ForwardArguments<T> &a) { forward_path<T, l1, l3, diagonal>(a); }
};
template <typename T, int l1, int l3, bool diagonal>
struct ReverseWithSource {
  static void run(const ReverseArguments<T> &a) { reverse_path<T, l1, l3, diagonal, true>(a); }
};
template <typename T, int l1, int l3, bool diagonal>
struct ReverseEdgeOnly {
  static void run(const ReverseArguments<T> &a) { reverse_path<T, l1, l3, diagonal, false>(a); }
};

/// Start of a path's rows of node `row` in its block.
inline std::int64_t source_start(const Path &p, std::int64_t row, std::int64_t channels) {
  return (row * (2 * p.l1 + 1) * p.source_copies + p.source_copy) * channels;
}
inline std::int64_t target_start(const Path &p, std::int64_t row, std::int64_t channels) {
  return (row * (2 * p.l3 + 1) * p.target_copies + p.target_copy) * channels;
}

/// A of one batch: block by block of channels, R of all its edges and paths, then path by path.
template <typename T>
inline void convolve_batch(const ConvolutionPlan &plan, const RadialTable<T> &radial, const EdgeWalk<T> &walk,
                           const EdgeBatch<T> &edges, std::int64_t center, const T *const *u, T *const *A) {
  static const PathTable<T, Forward> kernels;
  alignas(64) T R[batch * max_block_functions];
  const T *rows[batch];
  const std::int64_t width = radial.n_functions / plan.n_paths;
  for (std::int64_t block = 0; block < radial.n_blocks; ++block) {
    for (int e = 0; e < edges.count; ++e)
      interpolate<T, false>(radial, edges, e, block, R + e * radial.n_functions, nullptr);
    for (int k = 0; k < plan.n_paths; ++k) {
      const Path &p = plan.paths[k];
      for (int e = 0; e < edges.count; ++e)
        rows[e] = u[p.source] + source_start(p, walk.source_row[edges.index[e]], plan.channels);
      kernels.find(p)({edges.count, width, std::int64_t(p.source_copies) * plan.channels,
                       std::int64_t(p.target_copies) * plan.channels, radial.n_functions, block * width, R + k * width,
                       edges.couplings + p.entry * batch, rows,
                       A[p.target] + target_start(p, center, plan.channels) + block * width});
    }
  }
}

/// A of the receivers [begin, end), which is overwritten.
template <typename T>
void convolve(const ConvolutionPlan &plan, const RadialTable<T> &radial, const EdgeWalk<T> &walk, std::int64_t begin,
              std::int64_t end, const T *const *u, T *const *A) {
  EdgeBatch<T> edges;
  for (std::int64_t center = begin; center < end; ++center) {
    for (int b = 0; b < plan.target.n; ++b) {
      const std::int64_t size = std::int64_t(plan.target.rows[b]) * plan.channels;
      std::memset(A[b] + center * size, 0, size * sizeof(T));
    }
    for (std::int64_t first = walk.offsets[center]; first < walk.offsets[center + 1]; first += batch) {
      gather_edges(plan, radial, walk, first, walk.offsets[center + 1], walk.offsets[end], edges);
      convolve_batch(plan, radial, walk, edges, center, u, A);
    }
  }
}

/// gr and gY from gT through the couplings: per lane first, summed over lanes last. Y_00 is constant: its place
/// carries gr.
template <typename T>
inline void reverse_couplings(const ConvolutionPlan &plan, const Vector<T> *gT, Vector<T> gr, T *gr_sum, T *gY) {
  constexpr int n_padded = (max_y + lanes<T> - 1) / lanes<T> * lanes<T>;
  Vector<T> g[n_padded];
  alignas(64) T sums[n_padded];
  g[0] = gr;
  for (int y = 1; y < plan.n_y; ++y) {
    const Coupling *coupling = plan.couplings + plan.first_coupling[y], *last = plan.couplings + plan.first_coupling[y + 1];
    Vector<T> even = {}, odd = {};  // two chains hide the latency of the additions
    for (; coupling + 1 < last; coupling += 2) {
      even += value_of<T>(coupling[0]) * gT[coupling[0].entry];
      odd += value_of<T>(coupling[1]) * gT[coupling[1].entry];
    }
    if (coupling < last) even += value_of<T>(*coupling) * gT[coupling->entry];
    g[y] = even + odd;
  }
  for (int y = plan.n_y; y % lanes<T>; ++y) g[y] = Vector<T>{};
  for (int y = 0; y < plan.n_y; y += lanes<T>) sum_each<T>(g + y, sums + y);
  *gr_sum += sums[0];
  sums[0] = 0;
  int y = 0;
  for (; y + lanes<T> <= plan.n_y; y += lanes<T>) store(gY + y, load(gY + y) + load(sums + y));
  for (; y < plan.n_y; ++y) gY[y] += sums[y];
}

/// Adds to gr and gY of every edge of the receivers [begin, end), and to gu (null: not wanted) of row gu_row[edge].
template <typename T>
void reverse_convolve(const ConvolutionPlan &plan, const RadialTable<T> &radial, const EdgeWalk<T> &walk,
                      std::int64_t begin, std::int64_t end, const T *const *u, const T *const *gA,
                      const std::int32_t *gu_row, T *const *gu, T *gr, T *gY) {
  static const PathTable<T, ReverseWithSource> with_source;
  static const PathTable<T, ReverseEdgeOnly> edge_only;
  const std::int64_t channels = plan.channels, n_functions = plan.n_paths * channels, width = radial.n_functions / plan.n_paths;
  EdgeBatch<T> edges;
  alignas(64) T R[2 * max_functions];
  Vector<T> gT[max_entries];
  for (std::int64_t center = begin; center < end; ++center)
    for (std::int64_t first = walk.offsets[center]; first < walk.offsets[center + 1]; first += batch) {
      prefetch_rows(walk, gY, plan.n_y, first, walk.offsets[center + 1]);
      gather_edges(plan, radial, walk, first, walk.offsets[center + 1], walk.offsets[end], edges);
      for (int e = 0; e < edges.count; ++e) {
        const std::int64_t edge = edges.index[e], source = walk.source_row[edge];
        for (std::int64_t block = 0; block < radial.n_blocks; ++block)
          interpolate<T, true>(radial, edges, e, block, R + block * radial.n_functions,
                               R + n_functions + block * radial.n_functions);
        Vector<T> gr_lanes = {};
        for (int k = 0; k < plan.n_paths; ++k) {
          const Path &p = plan.paths[k];
          const ReverseArguments<T> arguments = {
              channels, width, radial.n_functions, p.source_copies * channels, p.target_copies * channels, R + k * width,
              R + n_functions + k * width, u[p.source] + source_start(p, source, channels),
              edges.couplings + p.entry * batch + e, gA[p.target] + target_start(p, center, channels),
              gu ? gu[p.source] + source_start(p, gu_row[edge], channels) : nullptr, gT + p.entry, &gr_lanes};
          if (gu)
            with_source.find(p)(arguments);
          else
            edge_only.find(p)(arguments);
        }
        reverse_couplings<T>(plan, gT, gr_lanes, gr + edge, gY + edge * plan.n_y);
      }
    }
}

/// out[i] += sum of the rows [offsets[i], offsets[i + 1]), in their order, for i in [begin, end).
template <typename T>
void add_rows(std::int64_t size, const std::int64_t *offsets, const T *const *rows, std::int64_t begin, std::int64_t end,
              T *out) {
  for (std::int64_t i = begin; i < end; ++i)
    for (std::int64_t c = 0; c < size; c += lanes<T>) {
      Vector<T> sum = load(out + i * size + c);
      for (std::int64_t k = offsets[i]; k < offsets[i + 1]; ++k) sum += load(rows[k] + c);
      store(out + i * size + c, sum);
    }
}

}  // namespace mdplugin::MDPLUGIN_ISA
