// SPDX-License-Identifier: MIT
// Edge geometry as torch ops: check, allocate, run over threads. No arithmetic here.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels.h"
#include "torch_border.h"

namespace mdplugin {
namespace {

std::tuple<Tensor, Tensor> edge_geometry(const Tensor &vectors, std::int64_t l_max, at::ScalarType type) {
  require(vectors, at::kDouble, "edge_vectors");
  TORCH_CHECK(l_max >= 0 && l_max <= max_degree, "mdplugin: l_max: expected 0 to ", max_degree, ", got ", l_max);
  const std::int64_t n = vectors.size(0);
  Tensor r = at::empty({n}, vectors.options().dtype(type));
  Tensor Y = at::empty({n, (l_max + 1) * (l_max + 1)}, r.options());
  dispatch(r, [&](auto zero) {
    using T = decltype(zero);
    at::parallel_for(0, n, 256, [&](std::int64_t begin, std::int64_t end) {
      kernels<T>().edge_geometry(int(l_max), begin, end, vectors.const_data_ptr<double>(), r.mutable_data_ptr<T>(),
                                 Y.mutable_data_ptr<T>());
    });
  });
  return {r, Y};
}

Tensor reverse_edge_geometry(const Tensor &vectors, const Tensor &gr, const Tensor &gY, std::int64_t l_max,
                             double scale) {
  require(vectors, at::kDouble, "edge_vectors");
  Tensor force = at::empty_like(vectors);
  dispatch(gr, [&](auto zero) {
    using T = decltype(zero);
    at::parallel_for(0, vectors.size(0), 256, [&](std::int64_t begin, std::int64_t end) {
      kernels<T>().reverse_edge_geometry(int(l_max), begin, end, vectors.const_data_ptr<double>(),
                                         gr.const_data_ptr<T>(), gY.const_data_ptr<T>(), scale,
                                         force.mutable_data_ptr<double>());
    });
  });
  return force;
}

/// Edges of every receiver by distance: offsets (n + 1,) and order (n_edges,). The receivers must be ascending.
std::tuple<Tensor, Tensor> sort_edges(const Tensor &receivers, const Tensor &r, std::int64_t n) {
  require(receivers, at::kLong, "receivers");
  Tensor offsets = at::zeros({n + 1}, receivers.options()), order = at::empty_like(receivers);
  const std::int64_t *receiver = receivers.const_data_ptr<std::int64_t>();
  std::int64_t *offset = offsets.mutable_data_ptr<std::int64_t>(), *edges = order.mutable_data_ptr<std::int64_t>();
  std::int64_t before = 0;
  for (std::int64_t e = 0; e < receivers.size(0); ++e) {
    TORCH_CHECK(receiver[e] >= before && receiver[e] < n, "mdplugin: edge ", e,
                ": expected ascending receivers below ", n, ", got ", receiver[e]);
    before = receiver[e];
    ++offset[before + 1];
  }
  std::partial_sum(offset, offset + n + 1, offset);
  dispatch(r, [&](auto zero) {
    using T = decltype(zero);
    const T *distances = r.const_data_ptr<T>();
    const auto distance = [&](std::int64_t e) {  // NaN, which has no order, comes last
      return distances[e] == distances[e] ? distances[e] : std::numeric_limits<T>::infinity();
    };
    at::parallel_for(0, n, 64, [&](std::int64_t begin, std::int64_t end) {
      std::iota(edges + offset[begin], edges + offset[end], offset[begin]);
      for (std::int64_t i = begin; i < end; ++i)
        std::sort(edges + offset[i], edges + offset[i + 1], [&](std::int64_t a, std::int64_t b) {
          return distance(a) < distance(b) || (distance(a) == distance(b) && a < b);
        });
    });
  });
  return {offsets, order};
}

}  // namespace
}  // namespace mdplugin

TORCH_LIBRARY_FRAGMENT(mdplugin, library) {
  library.def("edge_geometry(Tensor vectors, int l_max, ScalarType dtype) -> (Tensor, Tensor)", &mdplugin::edge_geometry);
  library.def("reverse_edge_geometry(Tensor vectors, Tensor gr, Tensor gY, int l_max, float scale) -> Tensor",
              &mdplugin::reverse_edge_geometry);
  library.def("sort_edges(Tensor receivers, Tensor r, int n) -> (Tensor, Tensor)", &mdplugin::sort_edges);
}
