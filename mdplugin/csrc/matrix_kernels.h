// SPDX-License-Identifier: MIT
// Border of the kernels for products with matrices of short types: plain pointers and sizes, no torch.
//
//     y[i, m, n] += out_scale[n] s_i sum_k a[i, m, k] W[k, n],      a = x[i, m, k] in_scale[k] / s_i, rounded
//
// s_i is one number per node i: the largest norm over m of a channel, over the largest integer. It does not change when
// the system is turned, so that it breaks no symmetry; the rounding of the components of a does.
#pragma once
#include <cstdint>

namespace mdplugin {

constexpr int panel = 64;          // columns of W that are packed together
constexpr int longest_sum = 512;   // of int16 products of at most 127 x 32767, in 32 bits

enum class Operand : int { bfloat16, int16, int8 };

/// W as the kernels read it: panels of `panel` columns (the last one narrower, a multiple of 16), in each all words of k,
/// two or four values of k to a word, columns innermost.
struct PackedMatrix {
  Operand operand;
  std::int64_t n_in, n_out, n_words;  // n_words: of one column, over k
  const std::int32_t *words;
  const float *in_scale, *out_scale;   // (n_in,), (n_out,); unused by bfloat16
  const std::int32_t *column_sums;     // (n_out,) of W, int8 alone: its a is unsigned, shifted by 128
};

struct MatrixKernels {
  bool has_int8;  // else int8 operands are multiplied as int16: the same integers
  /// Nodes [begin, end), each `rows` rows of n_in values; writes y, or adds to it.
  void (*multiply)(const PackedMatrix &, std::int64_t begin, std::int64_t end, std::int64_t rows, const float *x, float *y,
                   bool add);
  /// x of the nodes rounded to float16 in units of a power of two near the node's largest value; back in float.
  void (*round_half)(std::int64_t begin, std::int64_t end, std::int64_t size, const float *x, float *rounded);
};

/// The kernels for the instruction set that `dispatch.cpp` chooses.
const MatrixKernels &matrix_kernels();

}  // namespace mdplugin
