// SPDX-License-Identifier: MIT
// Symmetric contraction: per species and channel polynomials in the components of m (MACE, eqs. 10-11),
//
//     B_M = sum_products P sum_leaves D[species, leaf] m_leaf,      P = product of rows of m,
//
// evaluated for a few vectors of channels at a time. D merges weights and couplings and is read once, in order.
#pragma once
#include "kernels.h"
#include "vector.h"

namespace mdplugin::MDPLUGIN_ISA {

constexpr int max_rows = 64;     // of m: (max_degree + 1)², of both parities
constexpr int max_targets = 64;  // rows of B
constexpr int max_steps = 4;     // factors of a product, besides one: correlation up to 4

/// n vectors of neighbouring channels, worked on together: what is decoded once serves all, and their independent
/// chains hide the latency of the arithmetic and of the small arrays.
template <typename T, int n>
struct Group {
  Vector<T> v[n];
};

template <typename T, int n>
inline Group<T, n> load_group(const T *p, std::int64_t stride = lanes<T>) {
  Group<T, n> g;
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) g.v[i] = load(p + i * stride);
  return g;
}

/// a += x * y
template <typename T, int n>
inline void add_product(Group<T, n> &a, const Group<T, n> &x, const Group<T, n> &y) {
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) a.v[i] += x.v[i] * y.v[i];
}

template <typename T, int n>
inline Group<T, n> multiply(const Group<T, n> &x, const Group<T, n> &y) {
  Group<T, n> a;
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) a.v[i] = x.v[i] * y.v[i];
  return a;
}

/// Rows of one node from channel c on <- blocks one after the other.
template <typename T, int n>
inline void load_rows(const RowBlocks &blocks, std::int64_t node, int channels, int c, const T *const *x,
                      Group<T, n> *out) {
  for (int b = 0; b < blocks.n; ++b)
    for (int row = 0; row < blocks.rows[b]; ++row)
      *out++ = load_group<T, n>(x[b] + (node * blocks.rows[b] + row) * channels + c);
}

template <typename T, int n>
inline void store_rows(const RowBlocks &blocks, std::int64_t node, int channels, int c, const Group<T, n> *in,
                       T *const *x) {
  for (int b = 0; b < blocks.n; ++b)
    for (int row = 0; row < blocks.rows[b]; ++row, ++in)
      for (int i = 0; i < n; ++i) store(x[b] + (node * blocks.rows[b] + row) * channels + c + i * lanes<T>, in->v[i]);
}

/// D of the node's species at channel c; `leaf_at` finds a leaf's n vectors.
template <typename T, int n>
struct Coefficients {
  const T *start[n];

  Coefficients(const ContractionPlan &plan, const T *all, std::int64_t species, int c) {
    for (int i = 0; i < n; ++i, c += lanes<T>) {
      const std::int64_t block = species * plan.species_stride + c / channel_multiple;
      start[i] = all + block * plan.n_leaves * channel_multiple + c % channel_multiple;
    }
  }

  Group<T, n> at(int leaf) const {
    Group<T, n> g;
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) g.v[i] = load(start[i] + std::int64_t(leaf) * channel_multiple);
    return g;
  }
};

template <typename T, int n>
void contract_group(const ContractionPlan &plan, const T *coefficients, std::int64_t species, std::int64_t node, int c,
                    const T *const *m, T *const *B) {
  Group<T, n> rows[max_rows], sums[max_targets], P[max_steps];
  const Coefficients<T, n> D(plan, coefficients, species, c);
  load_rows(plan.source, node, plan.channels, c, m, rows);
  for (int i = 0; i < plan.n_targets; ++i) sums[i] = {};
  for (auto &v : P[0].v) v = Vector<T>{} + T(1);
  for (int k = 0; k < plan.n_steps; ++k) {
    const Step &step = plan.steps[k];
    if (step.degree > 0) P[step.degree] = multiply(P[step.degree - 1], rows[step.factor]);
    const Group<T, n> product = P[step.degree];
    for (int b = step.first; b < step.last; ++b) {
      const Branch &branch = plan.branches[b];
      Group<T, n> t = multiply(D.at(branch.first), rows[plan.factors[branch.first]]);
      for (int leaf = branch.first + 1; leaf < branch.last; ++leaf) add_product(t, D.at(leaf), rows[plan.factors[leaf]]);
      add_product(sums[branch.target], product, t);
    }
  }
  store_rows(plan.target, node, plan.channels, c, sums, B);
}

template <typename T, int n>
void reverse_contract_group(const ContractionPlan &plan, const T *coefficients, std::int64_t species, std::int64_t node,
                            int c, const T *const *m, const T *const *gB, T *const *gm) {
  Group<T, n> rows[max_rows], gradients[max_rows], gB_rows[max_targets], P[max_steps], gP[max_steps];
  int factor[max_steps] = {};
  const Coefficients<T, n> D(plan, coefficients, species, c);
  load_rows(plan.source, node, plan.channels, c, m, rows);
  load_rows(plan.target, node, plan.channels, c, gB, gB_rows);
  for (int i = 0; i < plan.n_rows; ++i) gradients[i] = {};
  for (auto &v : P[0].v) v = Vector<T>{} + T(1);
  for (int k = 0; k < plan.n_steps; ++k) {
    const Step &step = plan.steps[k];
    if (step.degree > 0) P[step.degree] = multiply(P[step.degree - 1], rows[step.factor]);
    factor[step.degree] = step.factor;
    const Group<T, n> product = P[step.degree];
    Group<T, n> g_product = {};
    for (int b = step.first; b < step.last; ++b) {
      const Branch &branch = plan.branches[b];
      const Group<T, n> g = gB_rows[branch.target], above = multiply(g, product);
      Group<T, n> t = {};
      for (int leaf = branch.first; leaf < branch.last; ++leaf) {
        const Group<T, n> coefficient = D.at(leaf);
        add_product(t, coefficient, rows[plan.factors[leaf]]);
        add_product(gradients[plan.factors[leaf]], coefficient, above);
      }
      add_product(g_product, g, t);
    }
    gP[step.degree] = g_product;
    // the products that end here give their gradient to their factor and to the product above
    for (int degree = step.degree; degree > 0 && degree >= plan.steps[k + 1].degree; --degree) {
      add_product(gradients[factor[degree]], gP[degree], P[degree - 1]);
      add_product(gP[degree - 1], gP[degree], rows[factor[degree]]);
    }
  }
  store_rows(plan.source, node, plan.channels, c, gradients, gm);
}

/// B of the nodes [begin, end), which is overwritten.
template <typename T>
void contract(const ContractionPlan &plan, const T *coefficients, const std::int64_t *species, std::int64_t begin,
              std::int64_t end, const T *const *m, T *const *B) {
  for (std::int64_t node = begin; node < end; ++node) {
    int c = 0;
    for (; c + 4 * lanes<T> <= plan.channels; c += 4 * lanes<T>)
      contract_group<T, 4>(plan, coefficients, species[node], node, c, m, B);
    for (; c + 2 * lanes<T> <= plan.channels; c += 2 * lanes<T>)
      contract_group<T, 2>(plan, coefficients, species[node], node, c, m, B);
    for (; c < plan.channels; c += lanes<T>) contract_group<T, 1>(plan, coefficients, species[node], node, c, m, B);
  }
}

/// gm of the nodes [begin, end), which is overwritten.
template <typename T>
void reverse_contract(const ContractionPlan &plan, const T *coefficients, const std::int64_t *species,
                      std::int64_t begin, std::int64_t end, const T *const *m, const T *const *gB, T *const *gm) {
  for (std::int64_t node = begin; node < end; ++node) {
    int c = 0;
    for (; c + 4 * lanes<T> <= plan.channels; c += 4 * lanes<T>)
      reverse_contract_group<T, 4>(plan, coefficients, species[node], node, c, m, gB, gm);
    for (; c + 2 * lanes<T> <= plan.channels; c += 2 * lanes<T>)
      reverse_contract_group<T, 2>(plan, coefficients, species[node], node, c, m, gB, gm);
    for (; c < plan.channels; c += lanes<T>)
      reverse_contract_group<T, 1>(plan, coefficients, species[node], node, c, m, gB, gm);
  }
}

}  // namespace mdplugin::MDPLUGIN_ISA
