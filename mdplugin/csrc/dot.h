// SPDX-License-Identifier: MIT
// Dot products of short types, two or four to a 32-bit word, added to 32-bit sums: one function per type, with the
// processor's own instruction where there is one. Integers give the same sums everywhere; bfloat16 differs in rounding.
//
//              AVX2                  AVX-512             AVX-512 with VNNI and BF16 ("v4dot")
//   int16      vpmaddwd, vpaddd      the same            vpdpwssd
//   int8       as int16              as int16            vpdpbusd (unsigned times signed)
//   bfloat16   two multiply-adds     the same            vdpbf16ps
#pragma once
#include "vector.h"

namespace mdplugin::MDPLUGIN_ISA {

#if defined(__AVX512VNNI__) && defined(__AVX512BF16__)
#define MDPLUGIN_DOT 1
#else
#define MDPLUGIN_DOT 0
#endif

/// Nearest whole numbers, ties to even, of |x| < 2^22: in the low bits of 1.5 * 2^23 + x.
inline Words round_to_words(Floats x) { return Words(x + 12582912.0f); }
/// The number that `round_to_words` rounded to.
inline Floats whole_part(Words word) { return Floats(word) - 12582912.0f; }

/// `exact`: the sum is an integer, whose unit is known to the caller.
struct Int16Dot {
  using Sum = Words;
  static constexpr bool exact = true;
  static Sum add(Sum sum, Words a, Words b) {
#if MDPLUGIN_DOT
    return Sum(_mm512_dpwssd_epi32(__m512i(sum), __m512i(a), __m512i(b)));
#elif defined(__AVX512BW__)
    return sum + Sum(_mm512_madd_epi16(__m512i(a), __m512i(b)));
#else
    return sum + Sum(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#endif
  }
};

#if MDPLUGIN_DOT
/// a: four unsigned bytes, b: four signed ones.
struct Int8Dot {
  using Sum = Words;
  static constexpr bool exact = true;
  static Sum add(Sum sum, Words a, Words b) { return Sum(_mm512_dpbusd_epi32(__m512i(sum), __m512i(a), __m512i(b))); }
};
#endif

struct BFloat16Dot {
  using Sum = Floats;
  static constexpr bool exact = false;
  static Sum add(Sum sum, Words a, Words b) {
#if MDPLUGIN_DOT
    return Sum(_mm512_dpbf16_ps(__m512(sum), __m512bh(__m512i(a)), __m512bh(__m512i(b))));
#else
    const Words high = Words{} + std::int32_t(0xffff0000);
    return sum + Floats(a << 16) * Floats(b << 16) + Floats(a & high) * Floats(b & high);
#endif
  }
};

}  // namespace mdplugin::MDPLUGIN_ISA
