// SPDX-License-Identifier: MIT
// Products of node features with matrices of short types (matrix_kernels.h).
//
// A few nodes at a time are rounded into a buffer, then multiplied panel by panel: a tile of rows x vectors of columns
// stays in registers over all of k.
#pragma once
#include "dot.h"
#include "matrix_kernels.h"

namespace mdplugin::MDPLUGIN_ISA {

constexpr int tile_rows = MDPLUGIN_VECTOR_BYTES == 64 ? 6 : 3;
constexpr int tile_vectors = MDPLUGIN_VECTOR_BYTES == 64 ? 4 : 2;
constexpr std::int64_t buffer_words = 4096;  // of rounded rows: half of the first-level cache

/// Largest norm over m of a channel, times `power`; infinity or NaN if any value is.
inline float largest_norm(const float *x, std::int64_t rows, std::int64_t n, const float *in_scale, float power) {
  Floats top = {}, total = {};
  for (std::int64_t k = 0; k < n; k += lanes<float>) {
    const Floats factor = load(in_scale + k) * power;
    Floats square = {};
    for (std::int64_t m = 0; m < rows; ++m) {
      const Floats v = load(x + m * n + k) * factor;
      square += v * v;
    }
    top = top > square ? top : square;
    total += square;
  }
  float most = 0, sum = 0;
  for (int i = 0; i < lanes<float>; ++i) {
    most = most > top[i] ? most : top[i];
    sum += total[i];
  }
  return sum < __builtin_inff() ? __builtin_sqrtf(most) : sum;
}

/// s of a node, and what its values are multiplied by: NaN and 0 for a node that is not finite, 0 and 0 for one of zeros.
struct NodeScale {
  float scale, inverse;

  NodeScale(const float *x, std::int64_t rows, std::int64_t n, const float *in_scale, float largest) {
    float power = 1.0f, norm = largest_norm(x, rows, n, in_scale, power);
    if (!(norm > 1e-15f && norm < __builtin_inff())) {  // squares leave float32's range long before their roots do
      power = norm > 1.0f ? 0x1p-100f : 0x1p100f;
      norm = largest_norm(x, rows, n, in_scale, power);
    }
    const bool finite = norm < __builtin_inff(), zero = norm / power < largest * 0x1p-126f;
    scale = !finite ? __builtin_nanf("") : zero ? 0.0f : norm / largest / power;
    inverse = !finite || zero ? 0.0f : largest / norm * power;
  }
};

/// One row in words of the operand's type; `inverse` of its node.
template <Operand operand>
inline void round_row(const float *x, std::int64_t n, const float *in_scale, float inverse, std::int32_t *words) {
  for (std::int64_t k = 0; k < n; k += lanes<float>) {
    const Floats v = load(x + k);
    if constexpr (operand == Operand::bfloat16) {
      const Words bits = Words(v), nearest = bits + 0x7fff + ((bits >> 16) & 1);
      const Words rounded = v == v ? nearest : Words{} + 0x7fc00000;  // else some NaN would become infinity or zero
      const Shorts shorts = __builtin_convertvector(rounded >> 16, Shorts);
      std::memcpy(reinterpret_cast<char *>(words) + 2 * k, &shorts, sizeof shorts);
    } else {
      const Words integers = round_to_words(v * (load(in_scale + k) * inverse));
      if constexpr (operand == Operand::int16) {
        const Shorts shorts = __builtin_convertvector(integers, Shorts);
        std::memcpy(reinterpret_cast<char *>(words) + 2 * k, &shorts, sizeof shorts);
      } else {
        const UnsignedBytes bytes = __builtin_convertvector(integers + 128, UnsignedBytes);
        std::memcpy(reinterpret_cast<char *>(words) + k, &bytes, sizeof bytes);
      }
    }
  }
}

/// y[row, columns of the tile] = (`add`: +=) unit of row and column x sum over the words [first, last) of k.
template <typename Dot, int rows, int vectors>
void multiply_tile(const PackedMatrix &W, const std::int32_t *packed, std::int64_t width, std::int64_t column,
                   std::int64_t first, std::int64_t last, const std::int32_t *a, const float *scales, float *y, bool add) {
  typename Dot::Sum sums[rows][vectors] = {};
  for (std::int64_t k = first; k < last; ++k) {
    Words b[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) b[v] = load_words(packed + k * width + v * lanes<float>);
#pragma GCC unroll 6
    for (int r = 0; r < rows; ++r) {
      const Words broadcast = Words{} + a[r * W.n_words + k];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = Dot::add(sums[r][v], broadcast, b[v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      const std::int64_t n = column + v * lanes<float>;
      float *out = y + r * W.n_out + n;
      if constexpr (Dot::exact) {
        Words sum = sums[r][v];
        if (W.column_sums) sum -= load_words(W.column_sums + n) << 7;
        const Floats product = __builtin_convertvector(sum, Floats) * (load(W.out_scale + n) * scales[r]);
        store(out, add ? load(out) + product : product);
      } else {
        store(out, add ? load(out) + sums[r][v] : sums[r][v]);
      }
    }
}

/// `rows` rows of a, at most `most`, times the columns of one panel.
template <typename Dot, int most, int vectors>
void multiply_rows(int rows, const PackedMatrix &W, const std::int32_t *packed, std::int64_t width, std::int64_t column,
                   std::int64_t first, std::int64_t last, const std::int32_t *a, const float *scales, float *y, bool add) {
  if (rows == most)
    multiply_tile<Dot, most, vectors>(W, packed, width, column, first, last, a, scales, y, add);
  else if constexpr (most > 1)
    multiply_rows<Dot, most - 1, vectors>(rows, W, packed, width, column, first, last, a, scales, y, add);
}

/// n rounded rows times W; sums of `longest` words fit 32 bits.
template <typename Dot>
void multiply_block(const PackedMatrix &W, std::int64_t n, const std::int32_t *a, const float *scales, float *y,
                    bool add, std::int64_t longest) {
  for (std::int64_t start = 0; start < W.n_out; start += panel) {
    const std::int64_t width = W.n_out - start < panel ? W.n_out - start : panel;
    const std::int32_t *packed = W.words + start * W.n_words;
    for (std::int64_t first = 0; first < W.n_words; first += longest) {
      const std::int64_t last = first + longest < W.n_words ? first + longest : W.n_words;
      for (std::int64_t r = 0; r < n; r += tile_rows) {
        const int rows = n - r < tile_rows ? int(n - r) : tile_rows;
        const std::int32_t *row = a + r * W.n_words;
        std::int64_t c = 0;
        for (; c + tile_vectors * lanes<float> <= width; c += tile_vectors * lanes<float>)
          multiply_rows<Dot, tile_rows, tile_vectors>(rows, W, packed + c, width, start + c, first, last, row, scales + r,
                                                      y + r * W.n_out, add || first > 0);
        for (; c < width; c += lanes<float>)
          multiply_rows<Dot, tile_rows, 1>(rows, W, packed + c, width, start + c, first, last, row, scales + r,
                                           y + r * W.n_out, add || first > 0);
      }
    }
  }
}

/// `operand` is how a lies in words; its integers reach to `largest`.
template <typename Dot, Operand operand, int largest>
void multiply_nodes(const PackedMatrix &W, std::int64_t begin, std::int64_t end, std::int64_t rows, const float *x,
                    float *y, bool add) {
  constexpr std::int64_t most_rows = 8 * tile_rows;
  alignas(64) std::int32_t buffer[buffer_words];
  // one sum over all of k unless it could overflow: partial sums are rounded, and int8 subtracts `column_sums` once
  const std::int64_t longest = operand == Operand::int16 && largest > 127 ? longest_sum / 2 : W.n_words;
  float scales[most_rows], inverse = 1.0f, scale = 1.0f;
  const std::int64_t fit = buffer_words / W.n_words, step = fit < most_rows ? fit : most_rows;
  for (std::int64_t start = begin * rows; start < end * rows; start += step) {
    const std::int64_t n = end * rows - start < step ? end * rows - start : step;
    for (std::int64_t i = 0; i < n; ++i) {
      if (operand != Operand::bfloat16 && (i == 0 || (start + i) % rows == 0)) {
        const NodeScale node(x + (start + i) / rows * rows * W.n_in, rows, W.n_in, W.in_scale, float(largest));
        scale = node.scale;
        inverse = node.inverse;
      }
      round_row<operand>(x + (start + i) * W.n_in, W.n_in, W.in_scale, inverse, buffer + i * W.n_words);
      scales[i] = scale;
    }
    multiply_block<Dot>(W, n, buffer, scales, y + start * W.n_out, add, longest);
  }
}

inline void multiply(const PackedMatrix &W, std::int64_t begin, std::int64_t end, std::int64_t rows, const float *x,
                     float *y, bool add) {
  switch (W.operand) {
    case Operand::bfloat16: return multiply_nodes<BFloat16Dot, Operand::bfloat16, 1>(W, begin, end, rows, x, y, add);
    case Operand::int16: return multiply_nodes<Int16Dot, Operand::int16, 32767>(W, begin, end, rows, x, y, add);
    case Operand::int8:
#if MDPLUGIN_DOT
      return multiply_nodes<Int8Dot, Operand::int8, 127>(W, begin, end, rows, x, y, add);
#else
      return multiply_nodes<Int16Dot, Operand::int16, 127>(W, begin, end, rows, x, y, add);
#endif
  }
}

inline Floats round_to_half(Floats x) {
#if defined(__AVX512F__)
  return Floats(_mm512_cvtph_ps(_mm512_cvtps_ph(__m512(x), _MM_FROUND_TO_NEAREST_INT)));
#else
  return Floats(_mm256_cvtph_ps(_mm256_cvtps_ph(__m256(x), _MM_FROUND_TO_NEAREST_INT)));
#endif
}

/// A node's values are divided by the power of two next to its largest one, so that they neither overflow nor lose bits.
inline void round_half(std::int64_t begin, std::int64_t end, std::int64_t size, const float *x, float *rounded) {
  for (std::int64_t node = begin; node < end; ++node) {
    const float *in = x + node * size;
    Words top = {};  // of the magnitudes' bits: the exponent is what counts
    for (std::int64_t k = 0; k < size; k += lanes<float>) {
      const Words bits = Words(load(in + k)) & 0x7fffffff;
      top = top > bits ? top : bits;
    }
    std::int32_t most = 0;
    for (int i = 0; i < lanes<float>; ++i) most = most > top[i] ? most : top[i];
    const std::int32_t exponent = most >> 23;
    const bool plain = exponent > 10 && exponent < 244;  // else tiny or not finite: nothing to gain, or to hide
    float up = 1.0f, down = 1.0f;
    const std::int32_t up_bits = exponent << 23, down_bits = (254 - exponent) << 23;
    if (plain) {
      std::memcpy(&up, &up_bits, sizeof up);
      std::memcpy(&down, &down_bits, sizeof down);
    }
    for (std::int64_t k = 0; k < size; k += lanes<float>) {
      const Floats v = load(in + k);
      store(rounded + node * size + k, plain ? round_to_half(v * down) * up : v);
    }
  }
}

}  // namespace mdplugin::MDPLUGIN_ISA
