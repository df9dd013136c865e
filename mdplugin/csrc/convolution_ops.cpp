// SPDX-License-Identifier: MIT
// The convolution as a torch class: check, allocate, run over threads. No arithmetic here.
//
// Threads take whole receivers, and every output row is summed in one fixed order (scatter.h): results are bitwise the
// same for any number of threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels.h"
#include "scatter.h"
#include "torch_border.h"

namespace mdplugin {
namespace {

/// A convolution with its couplings and radial table (kernels.h: ConvolutionPlan, RadialTable).
class Convolution : public torch::CustomClassHolder {
 public:
  /// paths (n_paths, 10) int64 as struct Path; indices (n_couplings, 2) int64 and values (n_couplings,) float64, sorted
  /// by row of Y; table (pairs, blocks, rows, functions of a block), its type the storage of the knots (int32: two of 16
  /// bits, kernels.h; int16: for sums in whole numbers); row_scale (pairs, rows) float64 of the knots; density
  /// (pairs, 1, rows, 1) or without column; pieces (size, size) float64.
  Convolution(Tensor paths, Tensor indices, Tensor values, Tensor table, Tensor row_scale, Tensor density, Tensor pieces,
              double r_max, std::int64_t channels, std::int64_t n_y)
      : paths_(std::move(paths)), indices_(std::move(indices)), values_(std::move(values)), table_(std::move(table)),
        row_scale_(std::move(row_scale)), density_(std::move(density)), pieces_(std::move(pieces)), r_max_(r_max), channels_(channels), n_y_(n_y) {
    read_paths();
    read_couplings();
    const std::int64_t size = pieces_.size(0);
    TORCH_CHECK(size == 4 || size == 6, "mdplugin: radial table: expected 4 or 6 weights per interval, got ", size);
    TORCH_CHECK(channels_ % channel_multiple == 0 && channels_ * n_paths() <= 16384,
                "mdplugin: convolution: too many or unpadded channels: ", channels_);
    const std::int64_t n_functions = channels_ * n_paths() / std::max<std::int64_t>(table_.size(1), 1);
    const std::int64_t columns = table_.scalar_type() == at::kInt ? (n_functions + 31) / 32 * 16 : n_functions;
    require(row_scale_, at::kDouble, "scale of rows");
    TORCH_CHECK(row_scale_.numel() == table_.size(0) * table_.size(2), "mdplugin: radial table: expected a scale of each row");
    const double unit = table_.scalar_type() == at::kInt ? 0x1p-16 : 1.0;
    for (std::int64_t i = 0; i < row_scale_.numel(); ++i) {
      row_units_.push_back(row_scale_.const_data_ptr<double>()[i] * unit);
      ones_.push_back(1.0);
    }
    if (table_.scalar_type() == at::kShort) pair_rows();
    TORCH_CHECK(n_functions <= 2048 && table_.size(3) == columns && table_.size(1) * n_functions == channels_ * n_paths(),
                "mdplugin: radial table: expected blocks of ", n_paths(), " paths, got ", table_.sizes());
  }

  /// A of every receiver; edges are sorted by receiver, `offsets` (n + 1).
  Tensors forward(const Tensors &u, const Tensor &r, const Tensor &Y, const Tensor &offsets, const Tensor &order,
                  const Tensor &source_row, const std::optional<Tensor> &pair) const {
    RECORD_FUNCTION("mdplugin::convolve", {});
    const std::int64_t n = offsets.size(0) - 1;
    Tensors A = allocate(n, target_rows_, channels_, r);
    dispatch(r, [&](auto zero) {
      using T = decltype(zero);
      const EdgeWalk<T> walk = make_walk<T>(u, r, Y, offsets, order, source_row);
      const auto table = make_table<T>(table_, channels_ * n_paths() / table_.size(1), row_units_, pair);
      const auto sources = pointers<T>(u);
      const auto targets = mutable_pointers<T>(A);
      at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels<T>().convolve(plan(), table, walk, begin, end, sources.data(), targets.data());
      });
    });
    return A;
  }

  /// Adds to gr and gY; returns gu, empty unless `with_source`.
  Tensors reverse(const Tensors &u, const Tensors &gA, const Tensor &r, const Tensor &Y, const Tensor &offsets,
                  const Tensor &order, const Tensor &source_row, const std::optional<Tensor> &pair, const Tensor &gr,
                  const Tensor &gY, bool with_source) const {
    RECORD_FUNCTION("mdplugin::reverse_convolve", {});
    Tensors gu;
    dispatch(r, [&](auto zero) {
      using T = decltype(zero);
      const EdgeWalk<T> walk = make_walk<T>(u, r, Y, offsets, order, source_row);
      const auto table = make_table<T>(table_, channels_ * n_paths() / table_.size(1), row_units_, pair);
      const auto sources = pointers<T>(u), gradients = pointers<T>(gA);
      const auto run = [&](std::int64_t begin, std::int64_t end, const std::int32_t *rows, T *const *targets) {
        kernels<T>().reverse_convolve(plan(), table, walk, begin, end, sources.data(), gradients.data(), rows, targets,
                                      gr.mutable_data_ptr<T>(), gY.mutable_data_ptr<T>());
      };
      if (with_source)
        gu = scatter<T>(walk, offsets.size(0) - 1, u, run);
      else
        at::parallel_for(0, offsets.size(0) - 1, 1,
                         [&](std::int64_t begin, std::int64_t end) { run(begin, end, nullptr, nullptr); });
    });
    return gu;
  }

  /// For gA, whose blocks have the layout of A; `zero`: zeros.
  Tensors allocate_target(std::int64_t n, bool zero) const {
    Tensors gA = allocate(n, target_rows_, channels_, density_);  // of the base type
    if (zero)
      for (Tensor &block : gA) block.zero_();
    return gA;
  }

  /// The density of Density blocks and its derivative at every edge.
  std::tuple<Tensor, Tensor> density(const Tensor &r, const std::optional<Tensor> &pair) const {
    RECORD_FUNCTION("mdplugin::density", {});
    Tensor value = at::empty_like(r), slope = at::empty_like(r);
    dispatch(r, [&](auto zero) {
      using T = decltype(zero);
      const auto table = make_table<T>(density_, 1, ones_, pair);
      at::parallel_for(0, r.size(0), 256, [&](std::int64_t begin, std::int64_t end) {
        kernels<T>().radial_function(table, begin, end, r.const_data_ptr<T>(), value.mutable_data_ptr<T>(),
                                     slope.mutable_data_ptr<T>());
      });
    });
    return {value, slope};
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, std::int64_t, std::int64_t> state() const {
    return {paths_, indices_, values_, table_, row_scale_, density_, pieces_, r_max_, channels_, n_y_};
  }

 private:
  std::int64_t n_paths() const { return std::int64_t(plan_paths_.size()); }

  /// gu of all senders, from run(first receiver, last, row of every edge, blocks of rows) over blocks of receivers.
  template <typename T, typename Run>
  Tensors scatter(const EdgeWalk<T> &walk, std::int64_t n_receivers, const Tensors &u, const Run &run) const {
    const std::int64_t n_senders = u[0].size(0), size = block_size(n_receivers), wave = blocks_per_wave * size;
    Tensors gu = allocate(n_senders, source_rows_, channels_, u[0]);
    for (Tensor &block : gu) block.zero_();
    std::vector<std::int32_t> slots(walk.offsets[n_receivers]);
    for (std::int64_t first = 0; first < n_receivers; first += wave) {
      const SenderBlocks blocks(first, std::min(n_receivers, first + wave), size, walk.offsets, walk.source_row, n_senders,
                                slots.data());
      std::vector<Tensors> parts(blocks.count());
      std::vector<std::vector<T *>> starts(source_rows_.size(), std::vector<T *>(blocks.count()));
      at::parallel_for(0, blocks.count(), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t b = begin; b < end; ++b) {
          parts[b] = allocate(blocks.rows(b), source_rows_, channels_, u[0]);
          const auto targets = mutable_pointers<T>(parts[b]);
          for (std::size_t k = 0; k < targets.size(); ++k) {
            std::memset(targets[k], 0, parts[b][k].nbytes());
            starts[k][b] = targets[k];
          }
          run(blocks.first(b), blocks.last(b), slots.data(), targets.data());
        }
      });
      for (std::size_t k = 0; k < gu.size(); ++k) {
        const std::int64_t row_size = source_rows_[k] * channels_;
        const auto rows = blocks.list_rows(starts[k], row_size);
        T *out = gu[k].mutable_data_ptr<T>();
        at::parallel_for(0, n_senders, 64, [&](std::int64_t begin, std::int64_t end) {
          kernels<T>().add_rows(row_size, blocks.offsets(), rows.data(), begin, end, out);
        });
      }
    }
    return gu;
  }

  void read_paths() {
    require(paths_, at::kLong, "paths");
    const std::int64_t *row = paths_.const_data_ptr<std::int64_t>();
    for (std::int64_t k = 0; k < paths_.size(0); ++k, row += 10) {
      const auto v = [&](int i) { return int(row[i]); };
      for (int i = 0; i < 10; ++i) TORCH_CHECK(row[i] >= 0, "mdplugin: convolution: path ", k, " has a negative entry");
      plan_paths_.push_back({v(0), v(1), v(2), v(3), v(4), v(5), v(6), v(7), v(8), v(9)});
      const Path &p = plan_paths_.back();
      TORCH_CHECK(p.l1 <= 3 && p.l3 <= max_degree, "mdplugin: path ", p.l1, " x ", p.l2, " -> ", p.l3, " has no kernel");
      n_entries_ = std::max(n_entries_, p.entry + (p.l2 == 0 ? 1 : (2 * p.l1 + 1) * (2 * p.l3 + 1)));
      grow(source_rows_, p.source, (2 * p.l1 + 1) * p.source_copies);
      grow(target_rows_, p.target, (2 * p.l3 + 1) * p.target_copies);
    }
    target_sizes_.assign(target_rows_.begin(), target_rows_.end());
    TORCH_CHECK(n_paths() <= 128, "mdplugin: convolution: ", n_paths(), " paths, at most 128");
    TORCH_CHECK(n_entries_ <= 1024, "mdplugin: convolution: ", n_entries_, " couplings per edge, at most 1024");
  }

  /// Each knot beside that of the next row, in one word (kernels.h: RadialTable).
  void pair_rows() {
    require(table_, at::kShort, "radial table");
    row_pairs_ = at::empty(table_.sizes(), table_.options().dtype(at::kInt));
    const std::int64_t n_rows = table_.size(2), n = table_.size(3);
    const std::int16_t *knot = table_.const_data_ptr<std::int16_t>();
    std::int32_t *word = row_pairs_.mutable_data_ptr<std::int32_t>();
    for (std::int64_t row = 0; row < table_.size(0) * table_.size(1) * n_rows; ++row)
      for (std::int64_t f = 0; f < n; ++f, ++knot) {
        const std::uint32_t next = (row + 1) % n_rows ? std::uint16_t(knot[n]) : 0;
        *word++ = std::int32_t(next << 16 | std::uint16_t(*knot));
      }
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
    TORCH_CHECK(indices_.numel() == 2 * values_.numel(), "mdplugin: convolution: expected two indices per coupling");
    for (std::int64_t k = 0; k < values_.size(0); ++k)
      TORCH_CHECK(index[2 * k] >= 0 && index[2 * k] < n_entries_ && index[2 * k + 1] >= 0 && index[2 * k + 1] < n_y_,
                  "mdplugin: convolution: coupling ", k, " is out of range");
    for (std::int64_t k = 0; k < values_.size(0); ++k)
      couplings_.push_back({int(index[2 * k]), int(index[2 * k + 1]), value[k], float(value[k])});
    const auto by_y = [](const Coupling &a, const Coupling &b) { return a.y < b.y; };
    TORCH_CHECK(std::is_sorted(couplings_.begin(), couplings_.end(), by_y), "mdplugin: convolution: couplings are not sorted by Y");
    first_coupling_.assign(n_y_ + 1, 0);
    for (const Coupling &coupling : couplings_) ++first_coupling_[coupling.y + 1];
    std::partial_sum(first_coupling_.begin(), first_coupling_.end(), first_coupling_.begin());
  }

  ConvolutionPlan plan() const {
    return {int(channels_), int(n_y_), n_entries_, int(plan_paths_.size()), int(couplings_.size()),
            plan_paths_.data(), couplings_.data(), first_coupling_.data(), {int(target_sizes_.size()), target_sizes_.data()}};
  }

  template <typename T>
  RadialTable<T> make_table(const Tensor &stored, std::int64_t n_functions, const std::vector<double> &row_scale,
                            const std::optional<Tensor> &pair) const {
    RadialTable<T> table;
    table.storage = find_storage<T>(stored.scalar_type());
    const Tensor &knots = table.storage == Storage::dot16 ? row_pairs_ : stored;
    require(knots, knots.scalar_type(), "radial table");
    table.knots = static_cast<const char *>(knots.const_data_ptr());
    table.n_blocks = knots.size(1);
    table.n_rows = knots.size(2);
    table.n_functions = n_functions;
    table.row_bytes = knots.size(3) * knots.element_size();
    table.row_scale = row_scale.data();
    table.size = int(pieces_.size(0));
    table.inverse_step = double(table.n_rows - table.size + 1) / r_max_;
    std::copy_n(pieces_.const_data_ptr<double>(), pieces_.numel(), table.pieces);
    table.pair = pair ? pair->const_data_ptr<std::int64_t>() : nullptr;
    return table;
  }

  template <typename T>
  static Storage find_storage(at::ScalarType type) {
    if (type == c10::CppTypeToScalarType<T>::value) return Storage::base;
    TORCH_CHECK(sizeof(T) == sizeof(float), "mdplugin: radial table: expected ", c10::CppTypeToScalarType<T>::value, ", got ", type);
    switch (type) {
      case at::kInt: return Storage::fixed16;
      case at::kShort: return Storage::dot16;
      case at::kChar: return Storage::fixed8;
      case at::kBFloat16: return Storage::brain16;
      case at::kHalf: return Storage::half16;
      default: TORCH_CHECK(false, "mdplugin: radial table: no kernel for ", type);
    }
  }

  template <typename T>
  EdgeWalk<T> make_walk(const Tensors &u, const Tensor &r, const Tensor &Y, const Tensor &offsets, const Tensor &order,
                        const Tensor &source_row) const {
    require(offsets, at::kLong, "offsets");
    require(order, at::kLong, "order");
    require_below(source_row, u[0].size(0), "source rows");
    return {offsets.const_data_ptr<std::int64_t>(), order.const_data_ptr<std::int64_t>(), r.const_data_ptr<T>(), Y.const_data_ptr<T>(),
            source_row.const_data_ptr<std::int64_t>()};
  }

  Tensor paths_, indices_, values_, table_, row_scale_, density_, pieces_;
  Tensor row_pairs_;  // of a table of int16: what the kernel reads
  std::vector<double> row_units_, ones_;  // of the rows of the table and of the density's
  double r_max_;
  std::int64_t channels_, n_y_;
  int n_entries_ = 0;
  std::vector<Path> plan_paths_;
  std::vector<Coupling> couplings_;
  std::vector<int> first_coupling_;
  std::vector<std::int64_t> source_rows_, target_rows_;
  std::vector<int> target_sizes_;
};

}  // namespace
}  // namespace mdplugin

TORCH_LIBRARY_FRAGMENT(mdplugin, library) {
  using mdplugin::Convolution;
  using Tensor = at::Tensor;
  using State = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, std::int64_t, std::int64_t>;
  library.class_<Convolution>("Convolution")
      .def(torch::init<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, std::int64_t, std::int64_t>())
      .def("forward", &Convolution::forward)
      .def("reverse", &Convolution::reverse)
      .def("density", &Convolution::density)
      .def("allocate_target", &Convolution::allocate_target)
      .def_pickle([](const c10::intrusive_ptr<Convolution> &self) { return self->state(); },
                  [](State s) {
                    return std::apply([](auto... part) { return c10::make_intrusive<Convolution>(part...); }, s);
                  });
}
