// SPDX-License-Identifier: MIT
// Edges of one receiver in batches, one per vector lane: their couplings with Y, and their place in the radial table.
#pragma once
#include "dot.h"
#include "kernels.h"

namespace mdplugin::MDPLUGIN_ISA {

constexpr int batch = 16;          // edges taken together
constexpr int max_entries = 1024;   // of T, all paths together
constexpr int max_block_functions = 2048;  // of one block of the radial table
constexpr int max_y = (max_degree + 1) * (max_degree + 1);

/// Weights of an edge in 16-bit whole numbers times `unit`, two to a word: [pair of weights][edge].
struct ShortWeights {
  std::int32_t words[max_spline / 2 * batch];
  float unit[batch];
};

/// Up to `batch` edges; arrays are [value][edge].
template <typename T>
struct EdgeBatch {
  int count;
  std::int64_t index[batch];
  const char *rows[batch];                         // first row of the interval, in the table's first block
  T w[max_spline * batch], dw[max_spline * batch];  // weights of R and dR/dr
  ShortWeights value, slope;                        // the same as whole numbers, for tables of integer sums
  alignas(64) T couplings[max_entries * batch];      // T = sum over m2 of C Y
};

/// The unit is the least with which each weight fits 16 bits and sums with knots of 16 bits fit 32, made larger, at most
/// twice, so that the sum of the weights is whole (where it is one unit or more). Each rounding error is carried to the
/// next weight: what is left is errors times differences of neighbouring knots, which are small.
inline void round_weights(const float *weights, int size, ShortWeights &rounded) {
  const Floats zero = {}, one = zero + 1.0f;
  for (int e = 0; e < batch; e += lanes<float>) {
    Floats most = {}, magnitudes = {}, sum = {};
    for (int j = 0; j < size; ++j) {
      const Floats w = load(weights + j * batch + e), magnitude = w > 0 ? w : -w;
      most = most > magnitude ? most : magnitude;
      magnitudes += magnitude;
      sum += w;
    }
    const Floats by_weight = most * (1.0f / 32760), by_sum = magnitudes * (1.0f / 65520);
    const Floats least = by_weight > by_sum ? by_weight : by_sum;
    const Floats whole = least > 0 ? __builtin_convertvector(__builtin_convertvector(sum / least, Words), Floats) : zero;
    const Floats unit = whole != 0 ? sum / whole : least;
    const Floats inverse = unit > 0 ? one / unit : zero;
    store(rounded.unit + e, unit);
    Floats carry = {};
    for (int j = 0; j < size; j += 2) {
      const Floats low = load(weights + j * batch + e) * inverse + carry;
      const Words low_word = round_to_words(low);
      carry = low - whole_part(low_word);
      const Floats high = load(weights + (j + 1) * batch + e) * inverse + carry;
      const Words high_word = round_to_words(high);
      carry = high - whole_part(high_word);
      const Words words = (low_word & 0xffff) | (high_word << 16);
      std::memcpy(rounded.words + j / 2 * batch + e, &words, sizeof words);
    }
  }
}

/// Where the edges lie in the table. Beyond r_max, where an edge of rounding's width may lie, R is zero.
template <typename T>
inline void locate(const RadialTable<T> &table, const T *r, EdgeBatch<T> &edges) {
  double t[batch], inside[batch];
  const double *scale[batch];
  const std::int64_t last = table.n_rows - table.size;
  for (int e = 0; e < batch; ++e) {
    const std::int64_t edge = edges.index[e < edges.count ? e : 0];
    const double x = double(r[edge]) * table.inverse_step;
    std::int64_t i = std::int64_t(x);
    if (i > last) i = last;
    if (!(i >= 0)) i = 0;
    t[e] = x - double(i);
    inside[e] = t[e] <= 1.0;
    const std::int64_t pair = table.pair ? table.pair[edge] : 0;
    edges.rows[e] = table.knots + (pair * table.n_blocks * table.n_rows + i) * table.row_bytes;
    scale[e] = table.row_scale + pair * table.n_rows + i;
  }
  for (int j = 0; j < table.size; ++j) {
    const double *piece = table.pieces + j * table.size;
    double w[batch], dw[batch];
    for (int e = 0; e < batch; ++e) {
      w[e] = piece[table.size - 1];
      dw[e] = 0;
    }
    for (int k = table.size - 2; k >= 0; --k)
      for (int e = 0; e < batch; ++e) {
        dw[e] = dw[e] * t[e] + w[e];
        w[e] = w[e] * t[e] + piece[k];
      }
    for (int e = 0; e < batch; ++e) {
      edges.w[j * batch + e] = T(w[e] * inside[e] * scale[e][j]);
      edges.dw[j * batch + e] = T(dw[e] * inside[e] * table.inverse_step * scale[e][j]);
    }
  }
  if constexpr (sizeof(T) == sizeof(float))
    if (table.storage == Storage::dot16) {
      round_weights(edges.w, table.size, edges.value);
      round_weights(edges.dw, table.size, edges.slope);
    }
}

template <typename T>
inline T value_of(const Coupling &coupling) {
  if constexpr (sizeof(T) == sizeof(float))
    return coupling.single;
  else
    return coupling.value;
}

template <typename T>
inline void form_couplings(const ConvolutionPlan &plan, const T *all_Y, EdgeBatch<T> &edges) {
  alignas(64) T Y[max_y * batch];
  for (int e = 0; e < batch; ++e) {
    const T *row = all_Y + edges.index[e < edges.count ? e : 0] * plan.n_y;
    for (int y = 0; y < plan.n_y; ++y) Y[y * batch + e] = row[y];
  }
  std::memset(edges.couplings, 0, sizeof(T) * plan.n_entries * batch);
  for (int c = 0; c < plan.n_couplings; ++c) {
    T *out = edges.couplings + plan.couplings[c].entry * batch;
    const T *y = Y + plan.couplings[c].y * batch;
    const T value = value_of<T>(plan.couplings[c]);
    for (int e = 0; e < batch; e += lanes<T>) store(out + e, load(out + e) + value * load(y + e));
  }
}

/// Asks the caches for the rows of the edges [first, first + batch) of a walk, as far as they lie before `end`: edges are
/// in order of distance, so that the rows of neighbours in the walk lie anywhere.
template <typename T>
inline void prefetch_rows(const EdgeWalk<T> &walk, const T *rows, std::int64_t width, std::int64_t first,
                          std::int64_t end) {
  constexpr std::int64_t line = 64 / sizeof(T);
  for (std::int64_t k = first; k < end && k < first + batch; ++k)
    for (std::int64_t c = 0; c < width; c += line) __builtin_prefetch(rows + walk.order[k] * width + c);
}

/// The edges [first, first + batch) of a walk, as far as they lie before `end`; the walk goes on to `end_of_walk`.
template <typename T>
inline void gather_edges(const ConvolutionPlan &plan, const RadialTable<T> &table, const EdgeWalk<T> &walk,
                         std::int64_t first, std::int64_t end, std::int64_t end_of_walk, EdgeBatch<T> &edges) {
  edges.count = end - first < batch ? int(end - first) : batch;
  for (int e = 0; e < edges.count; ++e) edges.index[e] = walk.order[first + e];
  prefetch_rows(walk, walk.Y, plan.n_y, first + edges.count, end_of_walk);
  locate(table, walk.r, edges);
  form_couplings(plan, walk.Y, edges);
}

/// `lanes` knots of a row from function f on, as they are stored.
template <typename T, Storage storage>
inline Vector<T> load_knots(const char *row, std::int64_t f) {
  if constexpr (storage == Storage::base) {
    return load(reinterpret_cast<const T *>(row) + f);
  } else if constexpr (storage == Storage::fixed8) {
    // __builtin_convertvector converts one by one here
#if defined(__AVX512F__)
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(row + f));
    return Vector<T>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
#else
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(row + f));
    return Vector<T>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
#endif
  } else if constexpr (storage == Storage::brain16) {
    UnsignedShorts shorts;
    std::memcpy(&shorts, row + 2 * f, sizeof shorts);
    return Vector<T>(__builtin_convertvector(shorts, Words) << 16);
  } else {
#if defined(__AVX512F__)
    return Vector<T>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(row + 2 * f))));
#else
    return Vector<T>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(row + 2 * f))));
#endif
  }
}

/// The weights of R and dR/dr of one edge, in all lanes.
template <typename T, int size, bool with_derivative>
struct Taps {
  Vector<T> w[size], dw[size];

  Taps(const T *weights, const T *slopes) {
#pragma GCC unroll 6
    for (int j = 0; j < size; ++j) {
      w[j] = Vector<T>{} + weights[j * batch];
      if constexpr (with_derivative) dw[j] = Vector<T>{} + slopes[j * batch];
    }
  }
};

template <typename T, int size, bool with_derivative, Storage storage>
inline void interpolate_rows(const char *rows, std::int64_t row_bytes, const T *weights, const T *slopes, std::int64_t n,
                             T *R, T *dR) {
  const Taps<T, size, with_derivative> taps(weights, slopes);
  for (std::int64_t f = 0; f < n; f += lanes<T>) {
    Vector<T> row = load_knots<T, storage>(rows, f), value = taps.w[0] * row, slope;
    if constexpr (with_derivative) slope = taps.dw[0] * row;
#pragma GCC unroll 6
    for (int j = 1; j < size; ++j) {
      row = load_knots<T, storage>(rows + j * row_bytes, f);
      value += taps.w[j] * row;
      if constexpr (with_derivative) slope += taps.dw[j] * row;
    }
    store(R + f, value);
    if constexpr (with_derivative) store(dR + f, slope);
  }
}

/// The same for two 16-bit knots in a word.
template <typename T, int size, bool with_derivative>
inline void interpolate_pairs(const char *rows, std::int64_t row_bytes, const T *weights, const T *slopes, std::int64_t n,
                              T *R, T *dR) {
  constexpr int half = channel_multiple;
  const Taps<T, size, with_derivative> taps(weights, slopes);
  for (std::int64_t f = 0; f < n; f += 2 * half)
    for (int i = 0; i < half; i += lanes<T>) {
      Vector<T> value[2] = {}, slope[2] = {};
#pragma GCC unroll 6
      for (int j = 0; j < size; ++j) {
        Words words;
        std::memcpy(&words, rows + j * row_bytes + 2 * (f + 2 * i), sizeof words);
        const Vector<T> low = __builtin_convertvector(words << 16, Vector<T>);
        const Vector<T> high = __builtin_convertvector(words & ~0xffff, Vector<T>);
        value[0] += taps.w[j] * low;
        value[1] += taps.w[j] * high;
        if constexpr (with_derivative) {
          slope[0] += taps.dw[j] * low;
          slope[1] += taps.dw[j] * high;
        }
      }
      for (int k = 0; k < 2 && f + k * half < n; ++k) {
        store(R + f + k * half + i, value[k]);
        if constexpr (with_derivative) store(dR + f + k * half + i, slope[k]);
      }
    }
}

/// The same in whole numbers: two knots of a function in a word, two weights in another; sums are exact.
template <int size, bool with_derivative>
inline void interpolate_words(const char *rows, std::int64_t row_bytes, const ShortWeights &value,
                              const ShortWeights &slope, int e, std::int64_t n, float *R, float *dR) {
  Words w[size / 2], dw[size / 2];
#pragma GCC unroll 3
  for (int j = 0; j < size / 2; ++j) {
    w[j] = Words{} + value.words[j * batch + e];
    if constexpr (with_derivative) dw[j] = Words{} + slope.words[j * batch + e];
  }
  for (std::int64_t f = 0; f < n; f += lanes<float>) {
    Words sum = {}, slope_sum = {};
#pragma GCC unroll 3
    for (int j = 0; j < size / 2; ++j) {
      const Words knots = load_words(reinterpret_cast<const std::int32_t *>(rows + 2 * j * row_bytes) + f);
      sum = Int16Dot::add(sum, knots, w[j]);
      if constexpr (with_derivative) slope_sum = Int16Dot::add(slope_sum, knots, dw[j]);
    }
    store(R + f, __builtin_convertvector(sum, Floats) * value.unit[e]);
    if constexpr (with_derivative) store(dR + f, __builtin_convertvector(slope_sum, Floats) * slope.unit[e]);
  }
}

template <typename T, int size, bool with_derivative>
inline void interpolate_stored(const RadialTable<T> &table, const EdgeBatch<T> &edges, int e, const char *rows, T *R,
                               T *dR) {
  const std::int64_t bytes = table.row_bytes, n = table.n_functions;
  const T *w = edges.w + e, *dw = edges.dw + e;
  if constexpr (sizeof(T) == sizeof(float)) {
    switch (table.storage) {
      case Storage::dot16:
        return interpolate_words<size, with_derivative>(rows, bytes, edges.value, edges.slope, e, n, R, dR);
      case Storage::fixed16: return interpolate_pairs<T, size, with_derivative>(rows, bytes, w, dw, n, R, dR);
      case Storage::fixed8:
        return interpolate_rows<T, size, with_derivative, Storage::fixed8>(rows, bytes, w, dw, n, R, dR);
      case Storage::brain16:
        return interpolate_rows<T, size, with_derivative, Storage::brain16>(rows, bytes, w, dw, n, R, dR);
      case Storage::half16:
        return interpolate_rows<T, size, with_derivative, Storage::half16>(rows, bytes, w, dw, n, R, dR);
      case Storage::base: break;
    }
  }
  interpolate_rows<T, size, with_derivative, Storage::base>(rows, bytes, w, dw, n, R, dR);
}

/// R (n_functions) and, if asked for, dR/dr of edge e in one block.
template <typename T, bool with_derivative>
inline void interpolate(const RadialTable<T> &table, const EdgeBatch<T> &edges, int e, std::int64_t block, T *R, T *dR) {
  const char *rows = edges.rows[e] + block * table.n_rows * table.row_bytes;
  if (table.size == 4)
    interpolate_stored<T, 4, with_derivative>(table, edges, e, rows, R, dR);
  else
    interpolate_stored<T, 6, with_derivative>(table, edges, e, rows, R, dR);
}

/// A table of one function (the density of Density blocks) and its derivative at every edge.
template <typename T>
void radial_function(const RadialTable<T> &table, std::int64_t begin, std::int64_t end, const T *r, T *value,
                     T *derivative) {
  EdgeBatch<T> edges;
  for (std::int64_t first = begin; first < end; first += batch) {
    edges.count = end - first < batch ? int(end - first) : batch;
    for (int e = 0; e < edges.count; ++e) edges.index[e] = first + e;
    locate(table, r, edges);
    for (int e = 0; e < edges.count; ++e) {
      T f = 0, df = 0;
      for (int j = 0; j < table.size; ++j) {
        const T c = reinterpret_cast<const T *>(edges.rows[e])[j];
        f += edges.w[j * batch + e] * c;
        df += edges.dw[j * batch + e] * c;
      }
      value[first + e] = f;
      derivative[first + e] = df;
    }
  }
}

}  // namespace mdplugin::MDPLUGIN_ISA
