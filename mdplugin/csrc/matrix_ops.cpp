// SPDX-License-Identifier: MIT
// A matrix in its storage type as a torch class: what is stored -> what the kernels read; products, run over threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <ATen/record_function.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include "matrix_kernels.h"
#include "torch_border.h"

namespace mdplugin {
namespace {

/// One direction of a matrix (n_in, n_out) of short type: words in panels, and the scales of its sides.
class Packed {
 public:
  Packed(const Tensor &matrix, Operand operand, const Tensor &in_scale, const Tensor &out_scale)
      : in_scale_(in_scale), out_scale_(out_scale) {
    const bool bytes = operand == Operand::int8 && matrix_kernels().has_int8;
    const std::int64_t n_in = matrix.size(0), n_out = matrix.size(1), per_word = bytes ? 4 : 2;
    words_.resize(n_in / per_word * n_out);
    if (bytes)
      pack<std::int8_t, 4>(matrix);
    else if (operand == Operand::bfloat16)
      pack<c10::BFloat16, 2>(matrix);
    else
      pack<std::int16_t, 2>(matrix.to(at::kShort));
    if (bytes) sums_ = matrix.sum(0, false, at::kInt).contiguous();
    plan_ = {operand, n_in, n_out, n_in / per_word, words_.data(), in_scale_.const_data_ptr<float>(),
             out_scale_.const_data_ptr<float>(), bytes ? sums_.const_data_ptr<std::int32_t>() : nullptr};
  }

  /// y (n, rows, n_out) = (`add`: +=) x (n, rows, n_in) times the matrix.
  void multiply(const Tensor &x, const Tensor &y, bool add) const {
    const std::int64_t n = x.size(0), rows = n ? x.numel() / n / plan_.n_in : 0;
    const float *from = x.const_data_ptr<float>();
    float *to = y.mutable_data_ptr<float>();
    at::parallel_for(0, n, 4, [&](std::int64_t begin, std::int64_t end) {
      matrix_kernels().multiply(plan_, begin, end, rows, from, to, add);
    });
  }

 private:
  /// Word (k, column) of a panel holds per_word values of one column.
  template <typename Value, int per_word>
  void pack(const Tensor &matrix) {
    const Tensor values = matrix.contiguous();
    const auto *from = static_cast<const Value *>(values.const_data_ptr());
    const std::int64_t n_in = values.size(0), n_out = values.size(1);
    auto *to = reinterpret_cast<Value *>(words_.data());
    for (std::int64_t start = 0; start < n_out; start += panel)
      for (std::int64_t k = 0; k < n_in; k += per_word)
        for (std::int64_t n = start; n < std::min(n_out, start + panel); ++n)
          for (int i = 0; i < per_word; ++i) *to++ = from[(k + i) * n_out + n];
  }

  std::vector<std::int32_t> words_;
  Tensor in_scale_, out_scale_, sums_;
  PackedMatrix plan_;
};

/// Matrices of all species, values x scale, and how they are multiplied:
///   "dense"           in float32 or float64, whatever the values are stored in
///   "fp16"            operands rounded to float16, products and sums in float32
///   "bf16", "w8a16", "w8a8"   operands of short type (matrix_kernels.h)
class Matrix : public torch::CustomClassHolder {
 public:
  /// The matrix is in_scale x values x scale: values (species or 1, n_in, n_out); scale float64 that broadcasts to it;
  /// in_scale (n_in,) float64, by which x is multiplied before it is rounded. `is_double`: "dense" in float64.
  Matrix(Tensor values, Tensor scale, Tensor in_scale, std::string kind, bool is_double)
      : values_(std::move(values)), scale_(std::move(scale)), in_scale_(std::move(in_scale)), kind_(std::move(kind)),
        is_double_(is_double) {
    TORCH_CHECK(values_.dim() == 3, "mdplugin: matrix: expected (species, in, out), got ", values_.sizes());
    TORCH_CHECK(in_scale_.numel() == values_.size(1), "mdplugin: matrix: expected ", values_.size(1), " scales of its input");
    if (kind_ == "dense" || kind_ == "fp16") {
      const Tensor restored = at::mul(at::mul(values_.to(at::kDouble), scale_), in_scale_.unsqueeze(1));
      dense_ = restored.to(is_double_ ? at::kDouble : at::kFloat).contiguous();
    } else {
      pack();
    }
  }

  /// y (n, rows, n_out per row) = (`add`: +=) x (n, rows, n_in per row) times the matrix of a species.
  void multiply(const Tensor &x, const Tensor &y, std::int64_t species, bool add) const {
    RECORD_FUNCTION("mdplugin::multiply", {});
    check(x, y, values_.size(1), values_.size(2), species);
    if (dense_.defined())
      multiply_dense(x, y, dense_[species], add);
    else
      forward_[species].multiply(x, y, add);
  }

  /// gx = (`add`: +=) gy times the transpose.
  void reverse(const Tensor &gy, const Tensor &gx, std::int64_t species, bool add) const {
    RECORD_FUNCTION("mdplugin::multiply", {});
    check(gy, gx, values_.size(2), values_.size(1), species);
    if (dense_.defined())
      multiply_dense(gy, gx, dense_[species].t(), add);
    else
      reverse_[species].multiply(gy, gx, add);
  }


  std::tuple<Tensor, Tensor, Tensor, std::string, bool> state() const {
    return {values_, scale_, in_scale_, kind_, is_double_};
  }

 private:
  void pack() {
    const std::int64_t n_in = values_.size(1), n_out = values_.size(2);
    TORCH_CHECK(!is_double_ && n_in % 16 == 0 && n_out % 16 == 0 && std::max(n_in, n_out) <= 8192,
                "mdplugin: matrix: expected float32 and sides that are multiples of 16, at most 8192, got ", values_.sizes());
    TORCH_CHECK(kind_ == "bf16" || kind_ == "w8a16" || kind_ == "w8a8", "mdplugin: matrix: unknown kind ", kind_);
    const Operand operand = kind_ == "bf16" ? Operand::bfloat16 : kind_ == "w8a16" ? Operand::int16 : Operand::int8;
    TORCH_CHECK(values_.scalar_type() == (operand == Operand::bfloat16 ? at::kBFloat16 : at::kChar), "mdplugin: matrix ",
                kind_, ": got values of type ", values_.scalar_type());
    const Tensor inputs = in_scale_.to(at::kFloat).contiguous();
    for (std::int64_t s = 0; s < values_.size(0); ++s) {
      const Tensor columns = scale_.expand({values_.size(0), 1, n_out})[s][0].to(at::kFloat).contiguous();
      forward_.emplace_back(values_[s], operand, inputs, columns);
      reverse_.emplace_back(values_[s].t(), operand, columns, inputs);
    }
  }

  void multiply_dense(const Tensor &x, const Tensor &y, const Tensor &matrix, bool add) const {
    Tensor rows = x;
    if (kind_ == "fp16") {
      require(x, at::kFloat, "feature");
      rows = at::empty_like(x);
      const std::int64_t size = x.size(0) ? x.numel() / x.size(0) : 0;
      const float *from = x.const_data_ptr<float>();
      float *to = rows.mutable_data_ptr<float>();
      at::parallel_for(0, x.size(0), 16, [&](std::int64_t begin, std::int64_t end) {
        matrix_kernels().round_half(begin, end, size, from, to);
      });
    }
    y.view({-1, matrix.size(1)}).addmm_(rows.view({-1, matrix.size(0)}), matrix, add ? 1 : 0);
  }

  void check(const Tensor &x, const Tensor &y, std::int64_t n_in, std::int64_t n_out, std::int64_t species) const {
    for (const Tensor &t : {x, y}) require(t, is_double_ ? at::kDouble : at::kFloat, "feature");
    TORCH_CHECK(x.dim() == 3 && y.dim() == 3 && x.size(0) == y.size(0) && x.size(1) * x.size(2) % n_in == 0 &&
                    x.size(1) * x.size(2) / n_in * n_out == y.size(1) * y.size(2),
                "mdplugin: matrix ", n_in, " x ", n_out, ": got ", x.sizes(), " and ", y.sizes());
    TORCH_CHECK(species >= 0 && species < values_.size(0), "mdplugin: matrix: expected a species below ", values_.size(0),
                ", got ", species);
  }

  Tensor values_, scale_, in_scale_;
  std::string kind_;
  bool is_double_;
  Tensor dense_;
  std::vector<Packed> forward_, reverse_;
};

}  // namespace
}  // namespace mdplugin

TORCH_LIBRARY_FRAGMENT(mdplugin, library) {
  using mdplugin::Matrix;
  using at::Tensor;
  using State = std::tuple<Tensor, Tensor, Tensor, std::string, bool>;
  library.class_<Matrix>("Matrix")
      .def(torch::init<Tensor, Tensor, Tensor, std::string, bool>())
      .def("multiply", &Matrix::multiply)
      .def("reverse", &Matrix::reverse)
      .def_pickle([](const c10::intrusive_ptr<Matrix> &self) { return self->state(); },
                  [](State s) {
                    return std::apply([](auto... part) { return c10::make_intrusive<Matrix>(part...); }, s);
                  });
}
