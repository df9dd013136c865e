// SPDX-License-Identifier: MIT
// mdplugin::halo and mdplugin::halo_reverse: node features from owners to ghosts, gradients back.
//
// The two ops are each other's transpose, so each is the derivative of the other.
#include "halo.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <atomic>

namespace mdplugin {
namespace {

std::atomic<HaloExchange *> current_exchange{nullptr};

enum class Direction { forward, reverse };

template <Direction direction>
void exchange_rows(HaloExchange &exchange, at::Tensor &rows) {
  const auto run = [&](auto *data) {
    if constexpr (direction == Direction::forward) {
      exchange.forward(data, rows.size(1));
    } else {
      exchange.reverse(data, rows.size(1));
    }
  };
  if (rows.scalar_type() == at::kFloat) {
    run(rows.data_ptr<float>());
  } else {
    run(rows.data_ptr<double>());
  }
}

/// `n_rows` rows from those of `source`: local -> all nodes (forward) or all -> local (reverse).
template <Direction direction>
at::Tensor transfer(const at::Tensor &source, std::int64_t n_rows) {
  constexpr bool forward = direction == Direction::forward;
  TORCH_CHECK(source.device().is_cpu(), "mdplugin::halo: expected a CPU tensor, got ",
              source.device());
  TORCH_CHECK(source.dim() == 2, "mdplugin::halo: expected rows (nodes, channels), got ",
              source.dim(), " dimensions");
  TORCH_CHECK(source.scalar_type() == at::kFloat || source.scalar_type() == at::kDouble,
              "mdplugin::halo: expected float32 or float64, got ", source.scalar_type());
  const std::int64_t n_local = forward ? source.size(0) : n_rows;
  const std::int64_t n_nodes = forward ? n_rows : source.size(0);
  HaloExchange *exchange = current_exchange.load();
  if (exchange == nullptr) {
    TORCH_CHECK(n_nodes == n_local, "mdplugin::halo: ", n_nodes - n_local,
                " ghost nodes, but no engine has registered an exchange");
    return source.clone(at::MemoryFormat::Contiguous);  // an op must not return its own input
  }
  TORCH_CHECK(n_local == exchange->n_local() && n_nodes == exchange->n_nodes(),
              "mdplugin::halo: the engine has ", exchange->n_local(), " local of ",
              exchange->n_nodes(), " nodes, the network asks for ", n_local, " of ", n_nodes);
  at::Tensor rows = at::empty({n_nodes, source.size(1)}, source.options());
  rows.narrow(0, 0, source.size(0)).copy_(source);
  exchange_rows<direction>(*exchange, rows);
  return rows.narrow(0, 0, n_rows);
}

template <Direction direction>
class TransferFunction : public torch::autograd::Function<TransferFunction<direction>> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &source,
                            std::int64_t n_rows) {
    context->saved_data["n_rows"] = source.size(0);
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return transfer<direction>(source, n_rows);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext *context, const torch::autograd::variable_list &gradients) {
    constexpr bool forward = direction == Direction::forward;
    constexpr auto transpose = forward ? Direction::reverse : Direction::forward;
    const std::int64_t n_rows = context->saved_data["n_rows"].toInt();
    return {TransferFunction<transpose>::apply(gradients[0], n_rows), at::Tensor()};
  }
};

template <Direction direction>
at::Tensor transfer_with_gradient(const at::Tensor &source, std::int64_t n_rows) {
  return TransferFunction<direction>::apply(source, n_rows);
}

}  // namespace

HaloScope::HaloScope(HaloExchange *exchange) : outer_(current_exchange.exchange(exchange)) {}

HaloScope::~HaloScope() { current_exchange.store(outer_); }

}  // namespace mdplugin

TORCH_LIBRARY(mdplugin, library) {
  library.def("halo(Tensor features, int n_nodes) -> Tensor");
  library.def("halo_reverse(Tensor gradients, int n_local) -> Tensor");
}

TORCH_LIBRARY_IMPL(mdplugin, CPU, library) {
  library.impl("halo", &mdplugin::transfer<mdplugin::Direction::forward>);
  library.impl("halo_reverse", &mdplugin::transfer<mdplugin::Direction::reverse>);
}

TORCH_LIBRARY_IMPL(mdplugin, Autograd, library) {
  library.impl("halo", &mdplugin::transfer_with_gradient<mdplugin::Direction::forward>);
  library.impl("halo_reverse", &mdplugin::transfer_with_gradient<mdplugin::Direction::reverse>);
}
