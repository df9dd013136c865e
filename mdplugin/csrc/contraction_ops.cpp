// SPDX-License-Identifier: MIT
// The symmetric contraction as a torch class: couplings and weights -> the kernel's polynomials; run over threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <map>
#include <numeric>

#include "kernels.h"
#include "torch_border.h"

namespace mdplugin {
namespace {

using Factors = std::vector<std::int64_t>;  // ascending; the order of vectors visits products depth first

/// A monomial of one row of B, and its coefficient D = sum over paths of U W: (path, U) of one term.
struct Leaf {
  std::size_t term;
  std::vector<std::pair<std::int64_t, double>> paths;
};

/// Leaves of one product by row of B and last factor.
using Leaves = std::map<std::pair<std::int32_t, std::int32_t>, Leaf>;

/// A symmetric contraction. Per term six tensors: head (4,) int64 target block, degree, 2L + 1, paths; monomials
/// (n, degree) int64, ascending rows of m; indices (n_couplings, 3) int64 [monomial, M, path]; values float64;
/// weights (species or 1, paths, channels) in any type and their scale, float64, that broadcasts to them.
class Contraction : public torch::CustomClassHolder {
 public:
  Contraction(std::vector<std::int64_t> source_rows, std::vector<std::int64_t> target_rows, std::int64_t channels,
              Tensors terms, bool is_double)
      : source_rows_(std::move(source_rows)), target_rows_(std::move(target_rows)), channels_(channels),
        terms_(std::move(terms)), is_double_(is_double), rows_(source_rows_.begin(), source_rows_.end()),
        targets_(target_rows_.begin(), target_rows_.end()) {
    for (const auto &blocks : {rows_, targets_})
      TORCH_CHECK(std::accumulate(blocks.begin(), blocks.end(), 0) <= 64, "mdplugin: contraction: more than 64 rows");
    TORCH_CHECK(channels_ % channel_multiple == 0, "mdplugin: contraction: unpadded channels: ", channels_);
    merge_weights(list_steps(collect_leaves()));
  }

  Tensors forward(const Tensors &m, const Tensor &species) const {
    RECORD_FUNCTION("mdplugin::contract", {});
    const std::int64_t n = species.size(0);
    Tensors B = allocate(n, target_rows_, channels_, m[0]);
    if (species_stride_ > 0) require_below(species, coefficients_.size(0), "species");
    dispatch(m[0], [&](auto zero) {
      using T = decltype(zero);
      const ContractionPlan plan = make_plan<T>();
      const auto sources = pointers<T>(m);
      const auto targets = mutable_pointers<T>(B);
      at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels<T>().contract(plan, coefficients_.const_data_ptr<T>(), species.const_data_ptr<std::int64_t>(), begin,
                              end, sources.data(), targets.data());
      });
    });
    return B;
  }

  Tensors reverse(const Tensors &m, const Tensors &gB, const Tensor &species) const {
    RECORD_FUNCTION("mdplugin::reverse_contract", {});
    const std::int64_t n = species.size(0);
    Tensors gm;
    for (const Tensor &block : m) gm.push_back(at::empty_like(block));
    if (species_stride_ > 0) require_below(species, coefficients_.size(0), "species");
    dispatch(m[0], [&](auto zero) {
      using T = decltype(zero);
      const ContractionPlan plan = make_plan<T>();
      const auto sources = pointers<T>(m), gradients = pointers<T>(gB);
      const auto targets = mutable_pointers<T>(gm);
      at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels<T>().reverse_contract(plan, coefficients_.const_data_ptr<T>(), species.const_data_ptr<std::int64_t>(),
                                      begin, end, sources.data(), gradients.data(), targets.data());
      });
    });
    return gm;
  }

  std::tuple<std::vector<std::int64_t>, std::vector<std::int64_t>, std::int64_t, Tensors, bool> state() const {
    return {source_rows_, target_rows_, channels_, terms_, is_double_};
  }

 private:
  /// Leaves of every product: all factors of a monomial but the last.
  std::map<Factors, Leaves> collect_leaves() const {
    std::map<Factors, Leaves> products;
    for (std::size_t k = 0; k < terms_.size(); k += 6) {
      const std::int64_t *head = terms_[k].const_data_ptr<std::int64_t>(), degree = head[1];
      const std::int64_t *monomials = terms_[k + 1].const_data_ptr<std::int64_t>();
      const std::int64_t *index = terms_[k + 2].const_data_ptr<std::int64_t>();
      TORCH_CHECK(degree >= 1 && degree <= 4, "mdplugin: contraction: correlation ", degree, ", at most 4");
      TORCH_CHECK(head[0] >= 0 && head[0] < std::int64_t(targets_.size()), "mdplugin: contraction: no block ", head[0]);
      require_below(terms_[k + 1], std::accumulate(rows_.begin(), rows_.end(), 0), "factors");
      const std::int32_t first = std::accumulate(targets_.begin(), targets_.begin() + head[0], 0);
      for (std::int64_t i = 0; i < terms_[k + 2].size(0); ++i, index += 3) {
        TORCH_CHECK(index[0] >= 0 && index[0] < terms_[k + 1].size(0) && index[1] >= 0 && index[1] < targets_[head[0]] &&
                        index[2] >= 0 && index[2] < terms_[k + 4].size(1),
                    "mdplugin: contraction: coupling ", i, " is out of range");
        const std::int64_t *factors = monomials + index[0] * degree;
        for (std::int64_t n = 0; n + 1 < degree; ++n) products[Factors(factors, factors + n)];
        Leaves &leaves = products[Factors(factors, factors + degree - 1)];
        Leaf &leaf = leaves[{first + std::int32_t(index[1]), std::int32_t(factors[degree - 1])}];
        leaf.term = k;
        leaf.paths.emplace_back(index[2], terms_[k + 3].const_data_ptr<double>()[i]);
      }
    }
    return products;
  }

  /// The plan; returns its leaves. A last step of degree 0 closes the stack.
  std::vector<Leaf> list_steps(const std::map<Factors, Leaves> &products) {
    std::vector<Leaf> all;
    for (const auto &[product, leaves] : products) {
      const std::int32_t factor = product.empty() ? 0 : std::int32_t(product.back());
      const std::int32_t first = std::int32_t(branches_.size());
      for (const auto &[key, leaf] : leaves) {
        const auto [target, last_factor] = key;
        const std::int32_t n = std::int32_t(all.size());
        if (std::int32_t(branches_.size()) == first || branches_.back().target != target)
          branches_.push_back({target, n, n});
        ++branches_.back().last;
        factors_.push_back(last_factor);
        all.push_back(leaf);
      }
      steps_.push_back({factor, std::int32_t(product.size()), first, std::int32_t(branches_.size())});
    }
    steps_.push_back({0, 0, 0, 0});
    return all;
  }

  /// D: (species or 1, channels / channel_multiple, leaves, channel_multiple), summed in double.
  void merge_weights(const std::vector<Leaf> &leaves) {
    std::int64_t n_species = 1;
    for (std::size_t k = 4; k < terms_.size(); k += 6) n_species = std::max(n_species, terms_[k].size(0));
    const std::int64_t n_blocks = channels_ / channel_multiple, n_leaves = std::int64_t(leaves.size());
    species_stride_ = n_species > 1 ? n_blocks : 0;
    Tensor merged = at::zeros({n_species, n_blocks, n_leaves, channel_multiple}, at::kDouble);
    double *D = merged.mutable_data_ptr<double>();
    Tensors double_weights;
    for (std::size_t k = 4; k < terms_.size(); k += 6)
      double_weights.push_back(at::mul(terms_[k].to(at::kDouble), terms_[k + 1]).contiguous());
    for (std::int64_t i = 0; i < n_leaves; ++i) {
      const Tensor &weights = double_weights[leaves[i].term / 6];
      const double *W = weights.const_data_ptr<double>();
      const std::int64_t n_paths = weights.size(1), stride = weights.size(0) > 1 ? n_paths * channels_ : 0;
      for (std::int64_t s = 0; s < n_species; ++s)
        for (const auto &[path, value] : leaves[i].paths)
          for (std::int64_t c = 0; c < channels_; ++c)
            D[((s * n_blocks + c / channel_multiple) * n_leaves + i) * channel_multiple + c % channel_multiple] +=
                value * W[s * stride + path * channels_ + c];
    }
    coefficients_ = merged.to(is_double_ ? at::kDouble : at::kFloat);
  }

  template <typename T>
  ContractionPlan make_plan() const {
    require(coefficients_, c10::CppTypeToScalarType<T>::value, "contraction weights");
    return {int(channels_), int(steps_.size()) - 1, int(factors_.size()),
            std::accumulate(rows_.begin(), rows_.end(), 0), std::accumulate(targets_.begin(), targets_.end(), 0), {int(rows_.size()), rows_.data()},
            {int(targets_.size()), targets_.data()}, species_stride_, steps_.data(), branches_.data(), factors_.data()};
  }

  std::vector<std::int64_t> source_rows_, target_rows_;
  std::int64_t channels_, species_stride_ = 0;
  Tensors terms_;
  bool is_double_;
  Tensor coefficients_;
  std::vector<int> rows_, targets_;
  std::vector<Step> steps_;
  std::vector<Branch> branches_;
  std::vector<std::int32_t> factors_;
};

}  // namespace
}  // namespace mdplugin

TORCH_LIBRARY_FRAGMENT(mdplugin, library) {
  using mdplugin::Contraction;
  using State = std::tuple<std::vector<std::int64_t>, std::vector<std::int64_t>, std::int64_t, std::vector<at::Tensor>, bool>;
  library.class_<Contraction>("Contraction")
      .def(torch::init<std::vector<std::int64_t>, std::vector<std::int64_t>, std::int64_t, std::vector<at::Tensor>, bool>())
      .def("forward", &Contraction::forward)
      .def("reverse", &Contraction::reverse)
      .def_pickle([](const c10::intrusive_ptr<Contraction> &self) { return self->state(); },
                  [](State s) {
                    return std::apply([](auto... part) { return c10::make_intrusive<Contraction>(part...); }, s);
                  });
}
