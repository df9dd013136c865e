// SPDX-License-Identifier: MIT
// The kernels as torch ops and classes: check, allocate, run over threads. No arithmetic here.
//
// Threads take whole receivers, senders or nodes, and every output row is written by one of them in a fixed
// order: results are bitwise the same for any number of threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <numeric>

#include "kernels.h"

namespace mdplugin {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

/// Calls `work(T{})` with the tensor's type, float or double.
template <typename Work>
void dispatch(const Tensor &like, Work &&work) {
  if (like.scalar_type() == at::kFloat)
    work(float{});
  else if (like.scalar_type() == at::kDouble)
    work(double{});
  else
    TORCH_CHECK(false, "mdplugin: expected float32 or float64, got ", like.scalar_type());
}

void require(const Tensor &t, at::ScalarType type, const char *name) {
  TORCH_CHECK(t.device().is_cpu() && t.is_contiguous() && t.scalar_type() == type, "mdplugin: ", name,
              ": expected a contiguous CPU tensor of type ", type, ", got ", t.scalar_type(), " on ", t.device());
}

template <typename T>
std::vector<const T *> pointers(const Tensors &tensors) {
  std::vector<const T *> result;
  for (const Tensor &t : tensors) {
    require(t, c10::CppTypeToScalarType<T>::value, "feature");
    result.push_back(t.const_data_ptr<T>());
  }
  return result;
}

template <typename T>
std::vector<T *> mutable_pointers(const Tensors &tensors) {
  std::vector<T *> result;
  for (const Tensor &t : tensors) result.push_back(t.mutable_data_ptr<T>());
  return result;
}

Tensors allocate(std::int64_t n, const std::vector<std::int64_t> &rows, std::int64_t channels, const Tensor &like) {
  Tensors result;
  for (const std::int64_t r : rows) result.push_back(at::zeros({n, r, channels}, like.options()));
  return result;
}

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

/// Counting sort: edges of every center in ascending order of the edge. Returns offsets (n + 1) and order.
std::tuple<Tensor, Tensor> group_edges(const Tensor &centers, std::int64_t n) {
  require(centers, at::kLong, "centers");
  Tensor offsets = at::zeros({n + 1}, centers.options()), order = at::empty_like(centers);
  const std::int64_t *center = centers.const_data_ptr<std::int64_t>();
  std::int64_t *offset = offsets.mutable_data_ptr<std::int64_t>(), *out = order.mutable_data_ptr<std::int64_t>();
  const std::int64_t n_edges = centers.size(0);
  for (std::int64_t e = 0; e < n_edges; ++e) {
    TORCH_CHECK(center[e] >= 0 && center[e] < n, "mdplugin: edge ", e, ": expected a node below ", n, ", got ", center[e]);
    ++offset[center[e] + 1];
  }
  std::partial_sum(offset, offset + n + 1, offset);
  std::vector<std::int64_t> next(offset, offset + n);
  for (std::int64_t e = 0; e < n_edges; ++e) out[next[center[e]]++] = e;
  return {offsets, order};
}

/// A convolution with its couplings and radial table (kernels.h: ConvolutionPlan, RadialTable).
class Convolution : public torch::CustomClassHolder {
 public:
  /// paths (n_paths, 10) int64 as struct Path; indices (n_couplings, 2) int64; values (n_couplings,) float64; table
  /// (pairs, rows, functions); pieces (size, size) float64.
  Convolution(Tensor paths, Tensor indices, Tensor values, Tensor table, Tensor pieces, double r_max,
              std::int64_t channels, std::int64_t n_y)
      : paths_(std::move(paths)), indices_(std::move(indices)), values_(std::move(values)), table_(std::move(table)),
        pieces_(std::move(pieces)), r_max_(r_max), channels_(channels), n_y_(n_y) {
    read_paths();
    read_couplings();
    const std::int64_t size = pieces_.size(0);
    TORCH_CHECK(size == 4 || size == 6, "mdplugin: radial table: expected 4 or 6 weights per interval, got ", size);
    TORCH_CHECK(channels_ % channel_multiple == 0 && channels_ * std::int64_t(plan_paths_.size()) <= 16384,
                "mdplugin: convolution: too many or unpadded channels: ", channels_);
  }

  Tensors forward(const Tensors &u, const Tensor &r, const Tensor &Y, const Tensor &offsets, const Tensor &source_row,
                  const std::optional<Tensor> &pair) const {
    RECORD_FUNCTION("mdplugin::convolve", {});
    const std::int64_t n = offsets.size(0) - 1;
    Tensors A = allocate(n, target_rows_, channels_, r);
    dispatch(r, [&](auto zero) {
      using T = decltype(zero);
      const EdgeWalk<T> walk = make_walk<T>(r, Y, offsets, nullptr, source_row, nullptr);
      const auto table = make_table<T>(pair);
      const auto sources = pointers<T>(u);
      const auto targets = mutable_pointers<T>(A);
      at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels<T>().convolve(plan(), table, walk, begin, end, sources.data(), targets.data());
      });
    });
    return A;
  }

  /// Adds to gr and gY; returns gu, empty unless `with_source`, where the edges must be grouped by source row.
  Tensors reverse(const Tensors &u, const Tensors &gA, const Tensor &r, const Tensor &Y, const Tensor &offsets,
                  const std::optional<Tensor> &order, const Tensor &source_row, const Tensor &target_row,
                  const std::optional<Tensor> &pair, const Tensor &gr, const Tensor &gY, bool with_source) const {
    RECORD_FUNCTION("mdplugin::reverse_convolve", {});
    const std::int64_t n = offsets.size(0) - 1;
    Tensors gu = with_source ? allocate(n, source_rows_, channels_, r) : Tensors();
    dispatch(r, [&](auto zero) {
      using T = decltype(zero);
      const EdgeWalk<T> walk = make_walk<T>(r, Y, offsets, order ? &*order : nullptr, source_row, &target_row);
      const auto table = make_table<T>(pair);
      const auto sources = pointers<T>(u), gradients = pointers<T>(gA);
      const auto targets = mutable_pointers<T>(gu);
      at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels<T>().reverse_convolve(plan(), table, walk, begin, end, sources.data(), gradients.data(),
                                      with_source ? targets.data() : nullptr, gr.mutable_data_ptr<T>(),
                                      gY.mutable_data_ptr<T>());
      });
    });
    return gu;
  }

  /// Zeros in the layout of A.
  Tensors allocate_target(std::int64_t n) const { return allocate(n, target_rows_, channels_, table_); }

  /// The table's last column and its derivative at every edge: the density of Density blocks.
  std::tuple<Tensor, Tensor> density(const Tensor &r, const std::optional<Tensor> &pair) const {
    RECORD_FUNCTION("mdplugin::density", {});
    Tensor value = at::empty_like(r), slope = at::empty_like(r);
    dispatch(r, [&](auto zero) {
      using T = decltype(zero);
      kernels<T>().radial_function(make_table<T>(pair), table_.size(2) - channel_multiple, 0, r.size(0),
                                   r.const_data_ptr<T>(), value.mutable_data_ptr<T>(), slope.mutable_data_ptr<T>());
    });
    return {value, slope};
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, double, std::int64_t, std::int64_t> state() const {
    return {paths_, indices_, values_, table_, pieces_, r_max_, channels_, n_y_};
  }

 private:
  void read_paths() {
    require(paths_, at::kLong, "paths");
    const std::int64_t *row = paths_.const_data_ptr<std::int64_t>();
    for (std::int64_t k = 0; k < paths_.size(0); ++k, row += 10) {
      const auto v = [&](int i) { return int(row[i]); };
      plan_paths_.push_back({v(0), v(1), v(2), v(3), v(4), v(5), v(6), v(7), v(8), v(9)});
      const Path &p = plan_paths_.back();
      TORCH_CHECK(p.l1 <= 3 && p.l3 <= max_degree, "mdplugin: path ", p.l1, " x ", p.l2, " -> ", p.l3, " has no kernel");
      n_entries_ = std::max(n_entries_, p.entry + (p.l2 == 0 ? 1 : (2 * p.l1 + 1) * (2 * p.l3 + 1)));
      grow(source_rows_, p.source, (2 * p.l1 + 1) * p.source_copies);
      grow(target_rows_, p.target, (2 * p.l3 + 1) * p.target_copies);
    }
    TORCH_CHECK(n_entries_ <= 1024, "mdplugin: convolution: ", n_entries_, " couplings per edge, at most 1024");
  }

  static void grow(std::vector<std::int64_t> &rows, int block, std::int64_t n) {
    if (std::int64_t(rows.size()) <= block) rows.resize(block + 1, 0);
    rows[block] = n;
  }

  void read_couplings() {
    require(indices_, at::kLong, "couplings");
    require(values_, at::kDouble, "coupling values");
    const std::int64_t *index = indices_.const_data_ptr<std::int64_t>();
    const double *value = values_.const_data_ptr<double>();
    for (std::int64_t k = 0; k < values_.size(0); ++k)
      couplings_.push_back({int(index[2 * k]), int(index[2 * k + 1]), value[k]});
  }

  ConvolutionPlan plan() const {
    return {int(channels_), int(n_y_), n_entries_, int(plan_paths_.size()), int(couplings_.size()),
            plan_paths_.data(), couplings_.data()};
  }

  template <typename T>
  RadialTable<T> make_table(const std::optional<Tensor> &pair) const {
    require(table_, c10::CppTypeToScalarType<T>::value, "radial table");
    RadialTable<T> table;
    table.coefficients = table_.const_data_ptr<T>();
    table.n_rows = table_.size(1);
    table.n_functions = table_.size(2);
    table.size = int(pieces_.size(0));
    table.inverse_step = double(table.n_rows - table.size + 1) / r_max_;
    std::copy_n(pieces_.const_data_ptr<double>(), pieces_.numel(), table.pieces);
    table.pair = pair ? pair->const_data_ptr<std::int64_t>() : nullptr;
    return table;
  }

  template <typename T>
  EdgeWalk<T> make_walk(const Tensor &r, const Tensor &Y, const Tensor &offsets, const Tensor *order,
                        const Tensor &source_row, const Tensor *target_row) const {
    require(offsets, at::kLong, "offsets");
    require(source_row, at::kLong, "source rows");
    return {offsets.const_data_ptr<std::int64_t>(),
            order ? order->const_data_ptr<std::int64_t>() : nullptr,
            r.const_data_ptr<T>(),
            Y.const_data_ptr<T>(),
            source_row.const_data_ptr<std::int64_t>(),
            target_row ? target_row->const_data_ptr<std::int64_t>() : nullptr};
  }

  Tensor paths_, indices_, values_, table_, pieces_;
  double r_max_;
  std::int64_t channels_, n_y_;
  int n_entries_ = 0;
  std::vector<Path> plan_paths_;
  std::vector<Coupling> couplings_;
  std::vector<std::int64_t> source_rows_, target_rows_;
};

/// Couplings of one term in both orders (kernels.h: ContractionTerm).
struct TermStorage {
  std::vector<std::int32_t> monomials, path_offsets, monomial_of, monomial_offsets, pair_of;
  std::vector<double> values, values_by_monomial;
};

/// A symmetric contraction. Per term five tensors: head (4,) int64 target block, degree, 2L + 1, paths; monomials
/// (n, degree) int64; indices (n_couplings, 3) int64 [monomial, M, path]; values float64; weights (species, paths, channels).
class Contraction : public torch::CustomClassHolder {
 public:
  Contraction(std::vector<std::int64_t> source_rows, std::vector<std::int64_t> target_rows, std::int64_t channels,
              Tensors terms)
      : source_rows_(std::move(source_rows)), target_rows_(std::move(target_rows)), channels_(channels),
        terms_(std::move(terms)), rows_(source_rows_.begin(), source_rows_.end()) {
    TORCH_CHECK(std::accumulate(rows_.begin(), rows_.end(), 0) <= 64, "mdplugin: contraction: more than 64 rows");
    storage_.reserve(terms_.size() / 5);
    for (std::size_t k = 0; k < terms_.size(); k += 5) read_term(&terms_[k]);
  }

  Tensors forward(const Tensors &m, const Tensor &species) const {
    RECORD_FUNCTION("mdplugin::contract", {});
    const std::int64_t n = species.size(0);
    Tensors B = allocate(n, target_rows_, channels_, m[0]);
    dispatch(m[0], [&](auto zero) {
      using T = decltype(zero);
      const auto weights = collect_weights<T>();
      const auto sources = pointers<T>(m);
      const auto targets = mutable_pointers<T>(B);
      at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels<T>().contract(int(plans_.size()), plans_.data(), weights.data(), int(rows_.size()), rows_.data(),
                              int(channels_), species.const_data_ptr<std::int64_t>(), begin, end, sources.data(),
                              targets.data());
      });
    });
    return B;
  }

  Tensors reverse(const Tensors &m, const Tensors &gB, const Tensor &species) const {
    RECORD_FUNCTION("mdplugin::reverse_contract", {});
    const std::int64_t n = species.size(0);
    Tensors gm;
    for (const Tensor &block : m) gm.push_back(at::empty_like(block));
    dispatch(m[0], [&](auto zero) {
      using T = decltype(zero);
      const auto weights = collect_weights<T>();
      const auto sources = pointers<T>(m), gradients = pointers<T>(gB);
      const auto targets = mutable_pointers<T>(gm);
      at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels<T>().reverse_contract(int(plans_.size()), plans_.data(), weights.data(), int(rows_.size()),
                                      rows_.data(), int(channels_), species.const_data_ptr<std::int64_t>(), begin, end,
                                      sources.data(), gradients.data(), targets.data());
      });
    });
    return gm;
  }

  std::tuple<std::vector<std::int64_t>, std::vector<std::int64_t>, std::int64_t, Tensors> state() const {
    return {source_rows_, target_rows_, channels_, terms_};
  }

 private:
  void read_term(const Tensor *t) {
    const std::int64_t *head = t[0].const_data_ptr<std::int64_t>();
    const int n_m = int(head[2]), n_paths = int(head[3]), n_monomials = int(t[1].size(0));
    const std::int64_t n = t[2].size(0), *index = t[2].const_data_ptr<std::int64_t>();
    TORCH_CHECK(n_monomials <= 8192 && n_m * n_paths <= 1024, "mdplugin: contraction: a term of ", n_monomials,
                " monomials and ", n_m * n_paths, " couplings is larger than the kernel's buffers");
    TermStorage &s = storage_.emplace_back();
    const std::int64_t *factors = t[1].const_data_ptr<std::int64_t>();
    s.monomials.assign(factors, factors + t[1].numel());
    const auto pair = [&](std::int64_t k) { return std::int32_t(index[3 * k + 1] * n_paths + index[3 * k + 2]); };
    const auto monomial = [&](std::int64_t k) { return std::int32_t(index[3 * k]); };
    sort_couplings(n, n_m * n_paths, pair, monomial, t[3], s.path_offsets, s.monomial_of, s.values);
    sort_couplings(n, n_monomials, monomial, pair, t[3], s.monomial_offsets, s.pair_of, s.values_by_monomial);
    const std::int64_t stride = t[4].size(0) > 1 ? t[4].size(1) * t[4].size(2) : 0;
    plans_.push_back({int(head[0]), int(head[1]), n_monomials, n_paths, n_m, s.monomials.data(), s.path_offsets.data(),
                      s.monomial_of.data(), s.values.data(), s.monomial_offsets.data(), s.pair_of.data(),
                      s.values_by_monomial.data(), stride});
  }

  template <typename Key, typename Other>
  static void sort_couplings(std::int64_t n, int n_keys, Key key, Other other, const Tensor &values,
                             std::vector<std::int32_t> &offsets, std::vector<std::int32_t> &others,
                             std::vector<double> &sorted) {
    std::vector<std::int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return key(a) < key(b); });
    offsets.assign(n_keys + 1, 0);
    for (const std::int64_t k : order) {
      ++offsets[key(k) + 1];
      others.push_back(other(k));
      sorted.push_back(values.const_data_ptr<double>()[k]);
    }
    std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  }

  template <typename T>
  std::vector<ContractionWeights<T>> collect_weights() const {
    std::vector<ContractionWeights<T>> weights;
    for (std::size_t k = 4; k < terms_.size(); k += 5) {
      require(terms_[k], c10::CppTypeToScalarType<T>::value, "contraction weights");
      weights.push_back({terms_[k].const_data_ptr<T>()});
    }
    return weights;
  }

  std::vector<std::int64_t> source_rows_, target_rows_;
  std::int64_t channels_;
  Tensors terms_;
  std::vector<int> rows_;
  std::vector<TermStorage> storage_;
  std::vector<ContractionTerm> plans_;
};

}  // namespace
}  // namespace mdplugin

TORCH_LIBRARY_FRAGMENT(mdplugin, library) {
  using mdplugin::Contraction;
  using mdplugin::Convolution;
  library.def("edge_geometry(Tensor vectors, int l_max, ScalarType dtype) -> (Tensor, Tensor)", &mdplugin::edge_geometry);
  library.def("reverse_edge_geometry(Tensor vectors, Tensor gr, Tensor gY, int l_max, float scale) -> Tensor",
              &mdplugin::reverse_edge_geometry);
  library.def("group_edges(Tensor centers, int n) -> (Tensor, Tensor)", &mdplugin::group_edges);
  using Tensor = at::Tensor;
  using ConvolutionState = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, double, std::int64_t, std::int64_t>;
  library.class_<Convolution>("Convolution")
      .def(torch::init<Tensor, Tensor, Tensor, Tensor, Tensor, double, std::int64_t, std::int64_t>())
      .def("forward", &Convolution::forward)
      .def("reverse", &Convolution::reverse)
      .def("density", &Convolution::density)
      .def("allocate_target", &Convolution::allocate_target)
      .def_pickle([](const c10::intrusive_ptr<Convolution> &self) { return self->state(); },
                  [](ConvolutionState s) {
                    return std::apply([](auto... part) { return c10::make_intrusive<Convolution>(part...); }, s);
                  });
  using ContractionState = std::tuple<std::vector<std::int64_t>, std::vector<std::int64_t>, std::int64_t, std::vector<Tensor>>;
  library.class_<Contraction>("Contraction")
      .def(torch::init<std::vector<std::int64_t>, std::vector<std::int64_t>, std::int64_t, std::vector<Tensor>>())
      .def("forward", &Contraction::forward)
      .def("reverse", &Contraction::reverse)
      .def_pickle([](const c10::intrusive_ptr<Contraction> &self) { return self->state(); },
                  [](ContractionState s) {
                    return std::apply([](auto... part) { return c10::make_intrusive<Contraction>(part...); }, s);
                  });
}
