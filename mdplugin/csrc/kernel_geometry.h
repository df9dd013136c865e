// SPDX-License-Identifier: MIT
// Edge vectors -> distances and spherical harmonics, in double whatever the type of the result.
//
// Real Y_lm with sum over m of Y_lm² = 2l + 1, row l² + l + m, m = -l..l about the y axis as in e3nn:
// Y_lm = N_lm Q_lm(y) Re or Im (z + i x)^|m|, Q_lm the |m|-th derivative of the Legendre polynomial P_l
// (reference.py: spherical_harmonics).
#pragma once
#include <cmath>

#include "kernels.h"
#include "vector.h"

namespace mdplugin::MDPLUGIN_ISA {

using Real = Vector<double>;
constexpr int n_lanes = lanes<double>;

struct Direction {
  Real x, y, z, r, inverse_r;
};

inline Real square_root(Real v) {
  for (int i = 0; i < n_lanes; ++i) v[i] = std::sqrt(v[i]);
  return v;
}

/// Up to n_lanes edges from `first`; lanes beyond `count` get a harmless unit vector.
inline Direction load_direction(const double *vectors, std::int64_t first, int count) {
  Real x = {}, y = {}, z = {};
  for (int i = 0; i < n_lanes; ++i) {
    const double *v = vectors + 3 * (first + (i < count ? i : 0));
    x[i] = v[0];
    y[i] = v[1];
    z[i] = v[2];
  }
  Direction d;
  d.r = square_root(x * x + y * y + z * z);
  d.inverse_r = 1.0 / d.r;
  d.x = x * d.inverse_r;
  d.y = y * d.inverse_r;
  d.z = z * d.inverse_r;
  return d;
}

/// N_lm: sqrt((2l + 1) (2 - [m = 0]) (l - m)! / (l + m)!).
struct Norms {
  double value[max_degree + 1][max_degree + 1];
  Norms() {
    for (int l = 0; l <= max_degree; ++l)
      for (int m = 0; m <= l; ++m) {
        double ratio = 1;
        for (int k = l - m + 1; k <= l + m; ++k) ratio /= k;
        value[l][m] = std::sqrt((2 * l + 1) * (m ? 2 : 1) * ratio);
      }
  }
};

/// Q_lm(y) and the waves Re, Im (z + i x)^m.
struct Factors {
  Real Q[max_degree + 1][max_degree + 2];
  Real cosine[max_degree + 1], sine[max_degree + 1];
};

inline void evaluate_factors(int l_max, const Direction &d, Factors &f) {
  for (int m = 0; m <= l_max + 1; ++m)
    for (int l = 0; l <= l_max; ++l) f.Q[l][m] = Real{};
  double diagonal = 1;
  for (int m = 0; m <= l_max; ++m) {
    if (m > 0) diagonal *= 2 * m - 1;
    f.Q[m][m] = Real{} + diagonal;
    for (int l = m + 1; l <= l_max; ++l) {
      Real Q = double(2 * l - 1) * d.y * f.Q[l - 1][m];
      if (l > m + 1) Q -= double(l + m - 1) * f.Q[l - 2][m];
      f.Q[l][m] = Q / double(l - m);
    }
  }
  f.cosine[0] = Real{} + 1.0;
  f.sine[0] = Real{};
  for (int m = 1; m <= l_max; ++m) {
    f.cosine[m] = d.z * f.cosine[m - 1] - d.x * f.sine[m - 1];
    f.sine[m] = d.x * f.cosine[m - 1] + d.z * f.sine[m - 1];
  }
}

inline const Norms &norms() {
  static const Norms table;
  return table;
}

template <typename T>
void edge_geometry(int l_max, std::int64_t begin, std::int64_t end, const double *vectors, T *r, T *Y) {
  const Norms &N = norms();
  const int n_y = (l_max + 1) * (l_max + 1);
  for (std::int64_t first = begin; first < end; first += n_lanes) {
    const int count = end - first < n_lanes ? int(end - first) : n_lanes;
    const Direction d = load_direction(vectors, first, count);
    Factors f;
    evaluate_factors(l_max, d, f);
    for (int i = 0; i < count; ++i) r[first + i] = T(d.r[i]);
    for (int l = 0; l <= l_max; ++l)
      for (int m = -l; m <= l; ++m) {
        const int k = m < 0 ? -m : m;
        const Real value = N.value[l][k] * f.Q[l][k] * (m < 0 ? f.sine[k] : f.cosine[k]);
        T *out = Y + first * n_y + l * l + l + m;
        for (int i = 0; i < count; ++i) out[i * n_y] = T(value[i]);
      }
  }
}

/// edge_force = -scale dE/d(vector) from the gradients with respect to r and Y.
template <typename T>
void reverse_edge_geometry(int l_max, std::int64_t begin, std::int64_t end, const double *vectors, const T *gr,
                           const T *gY, double scale, double *edge_force) {
  const Norms &N = norms();
  const int n_y = (l_max + 1) * (l_max + 1);
  for (std::int64_t first = begin; first < end; first += n_lanes) {
    const int count = end - first < n_lanes ? int(end - first) : n_lanes;
    const Direction d = load_direction(vectors, first, count);
    Factors f;
    evaluate_factors(l_max, d, f);
    Real gx = {}, gy = {}, gz = {};
    for (int l = 1; l <= l_max; ++l)
      for (int m = -l; m <= l; ++m) {
        const int k = m < 0 ? -m : m;
        Real g = {};
        for (int i = 0; i < count; ++i) g[i] = double(gY[(first + i) * n_y + l * l + l + m]);
        g *= N.value[l][k];
        gy += g * f.Q[l][k + 1] * (m < 0 ? f.sine[k] : f.cosine[k]);
        if (k == 0) continue;
        // d/dz (z + i x)^k = k (z + i x)^(k - 1), and d/dx is i times that
        const Real slope = double(k) * g * f.Q[l][k];
        gz += slope * (m < 0 ? f.sine[k - 1] : f.cosine[k - 1]);
        gx += slope * (m < 0 ? f.cosine[k - 1] : -f.sine[k - 1]);
      }
    Real along = {};
    for (int i = 0; i < count; ++i) along[i] = double(gr[first + i]);
    const Real radial = along - (gx * d.x + gy * d.y + gz * d.z) * d.inverse_r;
    const Real force[3] = {-scale * (radial * d.x + gx * d.inverse_r), -scale * (radial * d.y + gy * d.inverse_r),
                           -scale * (radial * d.z + gz * d.inverse_r)};
    for (int i = 0; i < count; ++i)
      for (int a = 0; a < 3; ++a) edge_force[3 * (first + i) + a] = force[a][i];
  }
}

}  // namespace mdplugin::MDPLUGIN_ISA
