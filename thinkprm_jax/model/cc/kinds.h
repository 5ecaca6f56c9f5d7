// The numbers that products are of, float32, bfloat16 and int8: how weights are packed, and what is added.

#pragma once

#include "vectors.h"

namespace {

#if defined(__AVX512F__)
constexpr int TILE_X = 6, TILE_W = 4;
#elif defined(__AVX__)
constexpr int TILE_X = 6, TILE_W = 2;
#elif defined(__aarch64__)
constexpr int TILE_X = 6, TILE_W = 4;
#else
constexpr int TILE_X = 6, TILE_W = 2;
#endif

// A block is Kind::DEEP steps of WIDE columns, packed: of every step TILE_W vectors. A step is as many rows of W as
// there are in Kind::ROWS; x has four bytes for it.
constexpr int WIDE = TILE_W * LANES;
constexpr int GROUP = 128;  // inputs of int8 that have one scale
typedef int8_t Few __attribute__((vector_size(LANES), aligned(1), may_alias));

// What a block's sums are in floats and in bfloat16: sums, from zero.
struct Sums {
  using Sum = Vector;
  static INLINE Sum start(const float*) { return Vector{}; }
  static INLINE Vector finish(Vector sums, Sum block, const float*) { return sums + block; }
};

struct Floats : Sums {
  using Weight = float;
  static constexpr int ROWS = 1, DEEP = 64;  // rows of W in a step, steps of a block
  static constexpr int SPAN = DEEP;          // floats that x has for a block
  static INLINE Vector along(const float* w) { return load(w); }
  static INLINE void across(const float* w, int64_t, Vector* to) {
    for (int v = 0; v < TILE_W; ++v) to[v] = load(w + v * LANES);
  }
  static INLINE float factor(const float* x) { return *x; }
  static INLINE Vector add(Vector sum, Vector w, float x) { return sum + w * x; }
};

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
struct Halves : Sums {  // pairs of them, multiplied as they are
  using Weight = Half;
  static constexpr int ROWS = 2, DEEP = 64, SPAN = DEEP;
  static INLINE Vector along(const Half* w) { return load(w); }
  static INLINE void across(const Half* w, int64_t stride, Vector* to) {
    static const __m512i first = places(0), second = places(16);
    for (int v = 0; v < TILE_W; v += 2) {
      const __m512i above = _mm512_loadu_si512(w + v * LANES), below = _mm512_loadu_si512(w + stride + v * LANES);
      to[v] = reinterpret_cast<Vector>(_mm512_permutex2var_epi16(above, first, below));
      to[v + 1] = reinterpret_cast<Vector>(_mm512_permutex2var_epi16(above, second, below));
    }
  }
  static INLINE Vector factor(const float* x) {
    int32_t pair;
    std::memcpy(&pair, x, 4);
    return reinterpret_cast<Vector>(_mm512_set1_epi32(pair));
  }
  static INLINE Vector add(Vector sum, Vector w, Vector x) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
  }

 private:
  static INLINE __m512i places(int from) {
    alignas(64) uint16_t values[32];
    for (int i = 0; i < 32; ++i) values[i] = from + i / 2 + i % 2 * 32;
    return _mm512_load_si512(values);
  }
};
#else
struct Halves : Sums {  // widened when they are packed
  using Weight = Half;
  static constexpr int ROWS = 1, DEEP = 64, SPAN = DEEP;
  static INLINE Vector along(const Half* w) { return load_wide(w); }
  static INLINE void across(const Half* w, int64_t, Vector* to) {
    for (int v = 0; v < TILE_W; ++v) to[v] = along(w + v * LANES);
  }
  static INLINE float factor(const float* x) { return *x; }
  static INLINE Vector add(Vector sum, Vector w, float x) { return sum + w * x; }
};
#endif

// int8 weights and inputs (`quantized`). A block is a group of inputs, whose products are added as whole numbers and
// then scaled: exactly, so that both of these say the same.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
struct Bytes {  // four of them, multiplied as they are: weights without a sign, so with 128 more than they are
  using Weight = int8_t;
  typedef __m512i Sum;
  static constexpr int ROWS = 4, DEEP = GROUP / ROWS, SPAN = DEEP + 2;
  static INLINE Vector along(const int8_t* w) { return unsign(_mm512_loadu_si512(w)); }
  static INLINE void across(const int8_t* w, int64_t stride, Vector* to) {
    __m512i row[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) row[r] = _mm512_permutexvar_epi32(fours(), _mm512_loadu_si512(w + r * stride));
    const __m512i first = _mm512_unpacklo_epi8(row[0], row[1]), second = _mm512_unpackhi_epi8(row[0], row[1]);
    const __m512i third = _mm512_unpacklo_epi8(row[2], row[3]), fourth = _mm512_unpackhi_epi8(row[2], row[3]);
    to[0] = unsign(_mm512_unpacklo_epi16(first, third));
    to[1] = unsign(_mm512_unpackhi_epi16(first, third));
    to[2] = unsign(_mm512_unpacklo_epi16(second, fourth));
    to[3] = unsign(_mm512_unpackhi_epi16(second, fourth));
  }
  static INLINE __m512i factor(const float* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
  }
  // As text: compilers keep twice as many sums as there are registers when they are given the intrinsic in a loop.
  static INLINE Sum add(Sum sum, Vector w, __m512i x) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
  }
  static INLINE Sum start(const float* x) { return factor(x + DEEP + 1); }
  static INLINE Vector finish(Vector sums, Sum block, const float* x) {
    return sums + reinterpret_cast<Vector>(_mm512_cvtepi32_ps(block)) * all(x[DEEP]);
  }
  // A group: its numbers, its scale, and what the 128 more of every weight would add.
  static INLINE void write(const int8_t* numbers, int32_t sum, float scale, float* to) {
    std::memcpy(to, numbers, GROUP);
    to[DEEP] = scale;
    sum *= -128;
    std::memcpy(to + DEEP + 1, &sum, 4);
  }

 private:
  static INLINE Vector unsign(__m512i w) { return reinterpret_cast<Vector>(_mm512_xor_si512(w, _mm512_set1_epi8(-128))); }
  // Columns 4 L .. 4 L + 3 of every sixteen go to lane L: unpacking then leaves columns in order.
  static INLINE __m512i fours() {
    return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  }
};
#else
struct Bytes : Sums {  // widened when they are packed: whole numbers below 2^24, so floats add them exactly
  using Weight = int8_t;
  static constexpr int ROWS = 1, DEEP = GROUP, SPAN = DEEP + 1;
  static INLINE Vector along(const int8_t* w) {
    return __builtin_convertvector(*reinterpret_cast<const Few*>(w), Vector);
  }
  static INLINE void across(const int8_t* w, int64_t, Vector* to) {
    for (int v = 0; v < TILE_W; ++v) to[v] = along(w + v * LANES);
  }
  static INLINE float factor(const float* x) { return *x; }
  static INLINE Vector add(Vector sum, Vector w, float x) { return sum + w * x; }
  static INLINE Vector finish(Vector sums, Vector block, const float* x) { return sums + block * all(x[DEEP]); }
  static INLINE void write(const int8_t* numbers, int32_t, float scale, float* to) {
    for (int i = 0; i < GROUP; ++i) to[i] = numbers[i];
    to[DEEP] = scale;
  }
};
#endif

inline int64_t quantized_width(int64_t inputs) { return (inputs + GROUP - 1) / GROUP * Bytes::SPAN; }

// A row of x in whole numbers to 127, each group of inputs with its own scale: to [quantized_width(inputs)]. A group
// with a number that is not finite has none as its scale.
inline void quantized(const float* x, int64_t inputs, float* to) {
  for (int64_t k = 0; k < inputs; k += GROUP, to += Bytes::SPAN) {
    alignas(64) float numbers[GROUP] = {};
    alignas(64) int8_t whole[GROUP];
    std::memcpy(numbers, x + k, std::min<int64_t>(GROUP, inputs - k) * sizeof(float));
    Ints most = {};
    for (int i = 0; i < GROUP; i += LANES) {  // bits are in the order of the numbers, and of what is none above all
      const Ints bits = reinterpret_cast<Ints>(load(numbers + i)) & 0x7fffffff;
      most = bits > most ? bits : most;
    }
    int32_t top = 0;
    for (int i = 0; i < LANES; ++i) top = std::max<int32_t>(top, most[i]);
    float largest;
    std::memcpy(&largest, &top, 4);
    const bool finite = top < 0x7f800000;
    const float factor = finite && largest > 0 ? 127.0f / largest : 0.0f;
    const Vector shift = all(12582912.0f);  // 1.5 * 2^23: what is added to it is rounded to a whole number
    Ints sums = {};
    for (int i = 0; i < GROUP; i += LANES) {
      const Ints here = reinterpret_cast<Ints>(load(numbers + i) * all(factor) + shift) - 0x4b400000;
      sums += here;
      *reinterpret_cast<Few*>(whole + i) = __builtin_convertvector(here, Few);
    }
    int32_t sum = 0;
    for (int i = 0; i < LANES; ++i) sum += sums[i];
    Bytes::write(whole, sum, finite ? largest / 127.0f : NAN, to);
  }
}

}  // namespace
