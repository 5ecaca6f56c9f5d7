// Products of activations with weights, y [B, N] = x [B, K] W, for the few rows of a decode step.
//
// A step reads every weight once, so its time is that of the memory, if nothing else is in the way. W stays as it
// is stored, [K, N] or [N, K], float32 or bfloat16; nothing is packed beforehand or held twice.
//
// One order of every sum: an element of y depends on its row of x and its column of W alone, never on how many
// rows there are, on the threads or on where a panel of columns begins. So a row's results are the same, bit for
// bit, whoever is computed beside it.
//
//   Columns   W [K, N]: of a panel of columns all rows of x are summed at once, a few rows of W at a time. The sums
//             of the panel lie in the first-level cache, W's rows are read from their beginning to their end.
//   Rows      W [N, K]: dot products of rows of W with rows of x, a tile of both in registers.
//   Tiles     bfloat16 of either kind where the processor has AMX: any number of rows.
//
// It is compiled on the machine that runs it (-march=native), so the widths below are that machine's.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__AVX512BW__) && defined(__linux__)
#define HAS_TILES 1
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

namespace ffi = xla::ffi;

#if defined(__AVX512F__)
constexpr int BYTES = 64, STEPS = 8, TILE_X = 6, TILE_W = 4;
#elif defined(__AVX__)
constexpr int BYTES = 32, STEPS = 4, TILE_X = 3, TILE_W = 3;
#elif defined(__aarch64__)
constexpr int BYTES = 16, STEPS = 8, TILE_X = 6, TILE_W = 4;
#else
constexpr int BYTES = 16, STEPS = 4, TILE_X = 3, TILE_W = 3;
#endif
constexpr int LANES = BYTES / 4;

typedef float Vector __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(BYTES), aligned(2), may_alias));
typedef uint16_t Half;  // the bits of a bfloat16

#define INLINE inline __attribute__((always_inline))

INLINE Vector load(const void* from) { return *static_cast<const Vector*>(from); }
INLINE float widen(Half value) {
  uint32_t bits = uint32_t{value} << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
// Of 2 * LANES bfloat16 those in even and in odd places.
INLINE Vector even(const Half* from) { return reinterpret_cast<Vector>(*reinterpret_cast<const Bits*>(from) << 16); }
INLINE Vector odd(const Half* from) {
  return reinterpret_cast<Vector>(*reinterpret_cast<const Bits*>(from) & 0xffff0000u);
}

// One product of a call. strides are in elements.
struct Product {
  const void* x;
  const void* w;
  float* y;
  int64_t rows, inputs, outputs;
};

// Memory of a thread, kept from call to call.
template <class T, int purpose>
T* scratch(size_t count) {
  struct alignas(64) Line {
    char bytes[64];
  };
  thread_local std::vector<Line> lines;
  const size_t needed = (count * sizeof(T) + 63) / 64;
  if (lines.size() < needed) lines.resize(needed);
  return reinterpret_cast<T*>(lines.data());
}

// ---- W [K, N] -----------------------------------------------------------------------------------------------

// How weights of a kind are multiplied. A step takes DEPTH rows of W; COLUMNS columns fill two vectors, in the
// order that is cheapest, and `write` brings them into theirs.
struct FloatColumns {
  using Weight = float;
  static constexpr int DEPTH = 1, COLUMNS = 2 * LANES;
  static INLINE void read(const float* w, int64_t, Vector& p, Vector& q) { p = load(w), q = load(w + LANES); }
  static INLINE float factor(const float* x) { return *x; }
  static INLINE Vector add(Vector sum, Vector w, float x) { return sum + w * x; }
  static INLINE void write(const Vector* sums, float* y) { std::memcpy(y, sums, 2 * BYTES); }
};

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
struct HalfColumns {
  using Weight = Half;
  static constexpr int DEPTH = 2, COLUMNS = 32;
  static INLINE void read(const Half* w, int64_t stride, Vector& p, Vector& q) {
    const __m512i first = _mm512_loadu_si512(w), second = _mm512_loadu_si512(w + stride);
    p = reinterpret_cast<Vector>(_mm512_unpacklo_epi16(first, second));
    q = reinterpret_cast<Vector>(_mm512_unpackhi_epi16(first, second));
  }
  static INLINE Vector factor(const Half* x) {
    int32_t pair;
    std::memcpy(&pair, x, 4);
    return reinterpret_cast<Vector>(_mm512_set1_epi32(pair));
  }
  static INLINE Vector add(Vector sum, Vector w, Vector x) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
  }
  static INLINE void write(const Vector* sums, float* y) {  // four columns of each in turn
    const float* from = reinterpret_cast<const float*>(sums);
    for (int part = 0; part < 8; ++part) std::memcpy(y + 4 * part, from + 16 * (part % 2) + 4 * (part / 2), 16);
  }
};
#else
struct HalfColumns {
  using Weight = Half;
  static constexpr int DEPTH = 1, COLUMNS = 2 * LANES;
  static INLINE void read(const Half* w, int64_t, Vector& p, Vector& q) { p = even(w), q = odd(w); }
  static INLINE float factor(const Half* x) { return widen(*x); }
  static INLINE Vector add(Vector sum, Vector w, float x) { return sum + w * x; }
  static INLINE void write(const Vector* sums, float* y) {
    const float* from = reinterpret_cast<const float*>(sums);
    for (int i = 0; i < LANES; ++i) y[2 * i] = from[i], y[2 * i + 1] = from[LANES + i];
  }
};
#endif

// STEPS steps of all rows of x for one group of columns; sums: two vectors a row. The steps have a sum of their own first:
// one running sum over thousands of inputs would lose more digits than XLA's products do.
template <class Kind>
INLINE void strip(const typename Kind::Weight* w, int64_t stride, const typename Kind::Weight* x, int64_t x_stride,
                  int64_t rows, Vector* sums) {
  Vector p[STEPS], q[STEPS];
#pragma GCC unroll 8
  for (int s = 0; s < STEPS; ++s) Kind::read(w + s * Kind::DEPTH * stride, stride, p[s], q[s]);
  for (int64_t b = 0; b < rows; ++b, x += x_stride, sums += 2) {
    Vector first{}, second{};
#pragma GCC unroll 8
    for (int s = 0; s < STEPS; ++s) {
      const auto factor = Kind::factor(x + s * Kind::DEPTH);
      first = Kind::add(first, p[s], factor);
      second = Kind::add(second, q[s], factor);
    }
    sums[0] = sums[0] + first, sums[1] = sums[1] + second;
  }
}

template <class Kind>
void columns(const Product& product, int64_t begin, int64_t end) {
  using Weight = typename Kind::Weight;
  constexpr int DEEP = STEPS * Kind::DEPTH, WIDE = Kind::COLUMNS;
  const int64_t rows = product.rows, inputs = product.inputs, outputs = product.outputs;
  const Weight* w = static_cast<const Weight*>(product.w) + begin;
  const Weight* x = static_cast<const Weight*>(product.x);
  const int64_t width = end - begin, groups = (width + WIDE - 1) / WIDE;
  const int64_t whole = width / WIDE, deep = inputs / DEEP * DEEP;
  Vector* sums = scratch<Vector, 0>(groups * rows * 2);
  std::fill(sums, sums + groups * rows * 2, Vector{});
  Weight part[DEEP * WIDE];  // of W where it ends, filled up with zeros
  auto edge = [&](int64_t k, int64_t group, const Weight* from, int64_t x_stride) {
    const int64_t count = std::min<int64_t>(WIDE, width - group * WIDE);
    std::memset(part, 0, sizeof(part));
    for (int64_t r = 0; r < std::min<int64_t>(DEEP, inputs - k); ++r)
      std::memcpy(part + r * WIDE, w + (k + r) * outputs + group * WIDE, count * sizeof(Weight));
    strip<Kind>(part, WIDE, from, x_stride, rows, sums + group * rows * 2);
  };
  for (int64_t k = 0; k < deep; k += DEEP) {
    for (int64_t group = 0; group < whole; ++group) {
      const Weight* here = w + k * outputs + group * WIDE;
      for (int r = 0; r < DEEP; ++r)
        for (int line = 0; line < WIDE * int(sizeof(Weight)); line += 64)
          __builtin_prefetch(reinterpret_cast<const char*>(here + (DEEP + r) * outputs) + line);
      strip<Kind>(here, outputs, x + k, inputs, rows, sums + group * rows * 2);
    }
    if (whole < groups) edge(k, whole, x + k, inputs);
  }
  if (deep < inputs) {
    Weight* rest = scratch<Weight, 1>(rows * DEEP);
    std::memset(rest, 0, rows * DEEP * sizeof(Weight));
    for (int64_t b = 0; b < rows; ++b)
      std::memcpy(rest + b * DEEP, x + b * inputs + deep, (inputs - deep) * sizeof(Weight));
    for (int64_t group = 0; group < groups; ++group) edge(deep, group, rest, DEEP);
  }
  for (int64_t b = 0; b < rows; ++b) {
    float* y = product.y + b * outputs + begin;
    for (int64_t group = 0; group < whole; ++group) Kind::write(sums + (group * rows + b) * 2, y + group * WIDE);
    if (whole < groups) {
      float last[WIDE];
      Kind::write(sums + (whole * rows + b) * 2, last);
      std::memcpy(y + whole * WIDE, last, (width - whole * WIDE) * sizeof(float));
    }
  }
}

// ---- W [N, K] -----------------------------------------------------------------------------------------------

struct FloatRows {
  using Weight = float;
  static constexpr int DEPTH = LANES;
  static INLINE Vector add(Vector sum, const float* w, const float* x) { return sum + load(w) * load(x); }
};

struct HalfRows {
  using Weight = Half;
  static constexpr int DEPTH = 2 * LANES;
#if defined(__AVX512BF16__)
  static INLINE Vector add(Vector sum, const Half* w, const Half* x) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(load(w)), reinterpret_cast<__m512bh>(load(x)));
  }
#else
  static INLINE Vector add(Vector sum, const Half* w, const Half* x) {
    return sum + even(w) * even(x) + odd(w) * odd(x);
  }
#endif
};

INLINE float total(Vector sum) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(sum);
#else
  typedef float Four __attribute__((vector_size(16)));
  Four parts[LANES / 4];
  std::memcpy(parts, &sum, BYTES);
  const Four four = LANES == 8 ? parts[0] + parts[LANES / 4 - 1] : parts[0];
  return (four[0] + four[2]) + (four[1] + four[3]);
#endif
}

// COUNT rows of x with TILE_W rows of W. The last, shorter step reads copies that are filled up with zeros.
template <class Kind, int COUNT>
void tile(const typename Kind::Weight* const* w, const typename Kind::Weight* x, int64_t inputs, float* y,
          int64_t y_stride, int64_t wanted) {
  using Weight = typename Kind::Weight;
  constexpr int DEPTH = Kind::DEPTH;
  Vector sums[COUNT][TILE_W] = {};
  const int64_t whole = inputs / DEPTH * DEPTH;
  for (int64_t k = 0; k < whole; k += DEPTH)
#pragma GCC unroll 8
    for (int b = 0; b < COUNT; ++b)
#pragma GCC unroll 8
      for (int n = 0; n < TILE_W; ++n) sums[b][n] = Kind::add(sums[b][n], w[n] + k, x + b * inputs + k);
  if (whole < inputs) {
    Weight last_w[TILE_W][DEPTH] = {}, last_x[COUNT][DEPTH] = {};
    const size_t bytes = (inputs - whole) * sizeof(Weight);
    for (int n = 0; n < TILE_W; ++n) std::memcpy(last_w[n], w[n] + whole, bytes);
    for (int b = 0; b < COUNT; ++b) std::memcpy(last_x[b], x + b * inputs + whole, bytes);
#pragma GCC unroll 8
    for (int b = 0; b < COUNT; ++b)
#pragma GCC unroll 8
      for (int n = 0; n < TILE_W; ++n) sums[b][n] = Kind::add(sums[b][n], last_w[n], last_x[b]);
  }
#pragma GCC unroll 8
  for (int b = 0; b < COUNT; ++b)
#pragma GCC unroll 8
    for (int n = 0; n < TILE_W; ++n)
      if (n < wanted) y[b * y_stride + n] = total(sums[b][n]);
}

template <class Kind, int COUNT>
INLINE void tile_of(int64_t count, const typename Kind::Weight* const* w, const typename Kind::Weight* x,
                    int64_t inputs, float* y, int64_t y_stride, int64_t wanted) {
  if (count == COUNT) return tile<Kind, COUNT>(w, x, inputs, y, y_stride, wanted);
  if constexpr (COUNT > 1) tile_of<Kind, COUNT - 1>(count, w, x, inputs, y, y_stride, wanted);
}

template <class Kind>
void rows(const Product& product, int64_t begin, int64_t end) {
  using Weight = typename Kind::Weight;
  const int64_t inputs = product.inputs, outputs = product.outputs;
  const Weight* x = static_cast<const Weight*>(product.x);
  for (int64_t n = begin; n < end; n += TILE_W) {
    const Weight* w[TILE_W];
    for (int i = 0; i < TILE_W; ++i)
      w[i] = static_cast<const Weight*>(product.w) + std::min(n + i, outputs - 1) * inputs;
    for (int64_t b = 0; b < product.rows; b += TILE_X)
      tile_of<Kind, TILE_X>(std::min<int64_t>(TILE_X, product.rows - b), w, x + b * inputs, inputs,
                            product.y + b * outputs + n, outputs, end - n);
  }
}

// ---- bfloat16 by tiles of AMX -------------------------------------------------------------------------------

#if HAS_TILES
constexpr int SIDE = 16, PAIRS = 32, TILE_HALVES = SIDE * PAIRS, TILE_FLOATS = SIDE * SIDE;

// The kernel of the system gives the tiles to a process that asks for them.
bool tiles_allowed() {
  static const bool allowed = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
  return allowed;
}

struct Tiles {  // of a thread: eight, each of 16 rows of 64 bytes
  Tiles() {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    _tile_loadconfig(&shape);
  }
  ~Tiles() { _tile_release(); }
};

INLINE int64_t up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// x [rows, inputs] filled up with zeros to whole tiles: [up(rows, 16), up(inputs, 32)].
const Half* padded(const Half* x, int64_t rows, int64_t inputs) {
  if (rows % SIDE == 0 && inputs % PAIRS == 0) return x;
  const int64_t height = up(rows, SIDE), width = up(inputs, PAIRS);
  Half* to = scratch<Half, 2>(height * width);
  std::memset(to, 0, height * width * sizeof(Half));
  for (int64_t b = 0; b < rows; ++b) std::memcpy(to + b * width, x + b * inputs, inputs * sizeof(Half));
  return to;
}

// The rows k .. k + 31 of W [K, N], `width` columns, as pairs of rows: tiles of 16 columns each, two by two with
// four columns of each in turn.
INLINE void pair_up(const Half* w, int64_t stride, int64_t depth, int64_t width, Half* to) {
  const int64_t whole = width / 32 * 32;
  const __mmask32 mask = (1u << (width - whole)) - 1;
  for (int r = 0; r < SIDE; ++r, w += 2 * stride, to += PAIRS) {
    const __mmask32 here = 2 * r < depth ? ~0u : 0, below = 2 * r + 1 < depth ? ~0u : 0;
    Half* tile = to;
    for (int64_t column = 0; column < width; column += 32, tile += 2 * TILE_HALVES) {
      const __mmask32 some = column < whole ? ~0u : mask;
      __builtin_prefetch(w + 8 * stride + column, 0, 2); __builtin_prefetch(w + 9 * stride + column, 0, 2);
      const __m512i first = _mm512_maskz_loadu_epi16(some & here, w + column);
      const __m512i second = _mm512_maskz_loadu_epi16(some & below, w + stride + column);
      _mm512_store_si512(tile, _mm512_unpacklo_epi16(first, second));
      _mm512_store_si512(tile + TILE_HALVES, _mm512_unpackhi_epi16(first, second));
    }
  }
}

// sums (tiles) += x [16 or 32 rows] times a strip of `deep` steps of 32 columns of W.
INLINE void multiply(const Half* x, int64_t x_bytes, bool two, const Half* w, int64_t w_step, int64_t deep,
                     float* upper, float* lower) {
  _tile_loadd(0, upper, 64);
  _tile_loadd(1, upper + TILE_FLOATS, 64);
  if (two) {
    _tile_loadd(2, lower, 64);
    _tile_loadd(3, lower + TILE_FLOATS, 64);
    for (int64_t s = 0; s < deep; ++s, x += PAIRS, w += w_step) {
      _tile_loadd(4, x, x_bytes);
      _tile_loadd(6, w, 64);
      _tile_loadd(7, w + TILE_HALVES, 64);
      _tile_loadd(5, x + SIDE * x_bytes / 2, x_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(2, lower, 64);
    _tile_stored(3, lower + TILE_FLOATS, 64);
  } else {
    for (int64_t s = 0; s < deep; ++s, x += PAIRS, w += w_step) {
      _tile_loadd(4, x, x_bytes);
      _tile_loadd(6, w, 64);
      _tile_loadd(7, w + TILE_HALVES, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
  _tile_stored(0, upper, 64);
  _tile_stored(1, upper + TILE_FLOATS, 64);
}

void tiled_columns(const Product& product, int64_t begin, int64_t end) {
  constexpr int64_t HIGH = 512;  // rows of x at a time
  // Steps of 32 rows of W at a time. Few, where most of the time goes into waiting for W: what is multiplied
  // meanwhile is short.
  const int64_t deepest = product.rows <= 2 * SIDE ? 4 : 32;
  const Tiles tiles;
  const int64_t inputs = product.inputs, outputs = product.outputs, steps = up(inputs, PAIRS) / PAIRS;
  const int64_t width = end - begin, pairs = up(width, 32) / 32;
  const Half* w = static_cast<const Half*>(product.w) + begin;
  const Half* x = static_cast<const Half*>(product.x);  // padded
  const int64_t w_step = pairs * 2 * TILE_HALVES;
  // Of all of W's rows where they are wanted again, else of those at hand, which then stay in a nearer cache.
  const bool again = product.rows > HIGH;
  Half* packed = scratch<Half, 3>((again ? steps : std::min(deepest, steps)) * w_step);
  for (int64_t top = 0; top < product.rows; top += HIGH) {
    const int64_t count = std::min(HIGH, product.rows - top), bands = up(count, SIDE) / SIDE;
    float* sums = scratch<float, 4>(bands * pairs * 2 * TILE_FLOATS);
    std::memset(sums, 0, bands * pairs * 2 * TILE_FLOATS * sizeof(float));
    for (int64_t first = 0; first < steps; first += deepest) {
      const int64_t deep = std::min(deepest, steps - first);
      Half* here = packed + (again ? first * w_step : 0);
      if (top == 0)
        for (int64_t s = first; s < first + deep; ++s)
          pair_up(w + s * PAIRS * outputs, outputs, inputs - s * PAIRS, width, here + (s - first) * w_step);
      for (int64_t band = 0; band < bands; band += 2)
        for (int64_t pair = 0; pair < pairs; ++pair) {
          float* upper = sums + (band * pairs + pair) * 2 * TILE_FLOATS;
          multiply(x + (top + band * SIDE) * steps * PAIRS + first * PAIRS, steps * PAIRS * 2, band + 1 < bands,
                   here + pair * 2 * TILE_HALVES, w_step, deep, upper,
                   upper + pairs * 2 * TILE_FLOATS);
        }
    }
    for (int64_t b = 0; b < count; ++b) {
      float* y = product.y + (top + b) * outputs + begin;
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const float* from = sums + ((b / SIDE) * pairs + pair) * 2 * TILE_FLOATS + b % SIDE * SIDE;
        for (int64_t four = 0; four < 8; ++four) {
          const int64_t column = pair * 32 + four * 4, left = std::min<int64_t>(4, width - column);
          if (left == 4)
            std::memcpy(y + column, from + four % 2 * TILE_FLOATS + four / 2 * 4, 16);
          else if (left > 0)
            std::memcpy(y + column, from + four % 2 * TILE_FLOATS + four / 2 * 4, left * 4);
        }
      }
    }
  }
}

// x [rows, inputs] as pairs of columns: for every 16 rows and every 32 columns one tile.
const Half* turned(const Half* x, int64_t rows, int64_t inputs) {
  const int64_t bands = up(rows, SIDE) / SIDE, steps = up(inputs, PAIRS) / PAIRS;
  Half* to = scratch<Half, 2>(bands * steps * TILE_HALVES);
  std::memset(to, 0, bands * steps * TILE_HALVES * sizeof(Half));
  for (int64_t b = 0; b < rows; ++b)
    for (int64_t k = 0; k < inputs; k += 2)
      std::memcpy(to + ((b / SIDE) * steps + k / PAIRS) * TILE_HALVES + k % PAIRS / 2 * PAIRS + b % SIDE * 2,
                  x + b * inputs + k, k + 1 < inputs ? 4 : 2);
  return to;
}

// 32 rows of W with 16 rows of x, into sums [32, 16].
void tiled_rows(const Product& product, int64_t begin, int64_t end) {
  const Tiles tiles;
  const int64_t inputs = product.inputs, outputs = product.outputs, steps = up(inputs, PAIRS) / PAIRS;
  const int64_t whole = inputs / PAIRS, bytes = inputs * 2;
  const Half* all = static_cast<const Half*>(product.w);
  const Half* x = static_cast<const Half*>(product.x);  // turned
  alignas(64) Half last[2 * TILE_HALVES];
  alignas(64) float sums[2 * TILE_FLOATS];
  for (int64_t n = begin; n < end; n += 2 * SIDE) {
    const int64_t from = std::min(n, outputs - 2 * SIDE);  // a block that begins earlier than it need
    const Half* w = all + from * inputs;
    if (whole < steps) {
      std::memset(last, 0, sizeof(last));
      for (int r = 0; r < 2 * SIDE; ++r)
        std::memcpy(last + r * PAIRS, w + r * inputs + whole * PAIRS, (inputs - whole * PAIRS) * sizeof(Half));
    }
    for (int64_t top = 0; top < product.rows; top += SIDE) {
      const Half* here = x + top / SIDE * steps * TILE_HALVES;
      _tile_zero(0);
      _tile_zero(1);
      for (int64_t s = 0; s < steps; ++s) {
        const bool inside = s < whole;
        const Half* upper = inside ? w + s * PAIRS : last;
        const int64_t stride = inside ? bytes : 64;
        _tile_loadd(6, here + s * TILE_HALVES, 64);
        _tile_loadd(4, upper, stride);
        _tile_loadd(5, upper + SIDE * stride / 2, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
      }
      _tile_stored(0, sums, 64);
      _tile_stored(1, sums + TILE_FLOATS, 64);
      const int64_t count = std::min<int64_t>(SIDE, product.rows - top), stop = std::min(n + 2 * SIDE, end);
      for (int64_t b = 0; b < count; ++b)
        for (int64_t i = n; i < stop; ++i) product.y[(top + b) * outputs + i] = sums[(i - from) * SIDE + b];
    }
  }
}
#endif

// ---- One call -----------------------------------------------------------------------------------------------

struct Unit {  // columns of y
  int product;
  int64_t begin, end;
};

typedef void Function(const Product&, int64_t begin, int64_t end);

// Units are taken by this thread and by whichever of XLA's come in time; a thread that comes late finds nothing
// left and touches nothing. So this thread never waits for one that has not begun.
void run(Function* function, const std::vector<Product>& products, const std::vector<Unit>& units,
         ffi::ThreadPool& pool, int64_t helpers) {
  struct Shared {
    std::atomic<size_t> next{0}, done{0};
  };
  auto shared = std::make_shared<Shared>();
  const Product* product = products.data();
  const Unit* unit = units.data();
  const size_t count = units.size();
  auto work = [shared, product, unit, count, function] {
    for (size_t i; (i = shared->next.fetch_add(1)) < count; shared->done.fetch_add(1, std::memory_order_release))
      function(product[unit[i].product], unit[i].begin, unit[i].end);
  };
  for (int64_t i = 0; i < helpers; ++i) {
    auto copy = work;
    pool.Schedule(std::move(copy));
  }
  work();
  for (int turns = 0; shared->done.load(std::memory_order_acquire) < count; ++turns)
    if (turns > 10000) std::this_thread::yield();
}

// Splits every product into panels; `most`: columns of one, `grain`: a multiple of which it begins at.
std::vector<Unit> split(const std::vector<Product>& products, int64_t most, int64_t grain, int64_t threads) {
  std::vector<Unit> units;
  for (size_t i = 0; i < products.size(); ++i) {
    const int64_t outputs = products[i].outputs, grains = (outputs + grain - 1) / grain;
    int64_t panels = (outputs + most - 1) / most;
    if (threads > 1) panels = (panels + threads - 1) / threads * threads;
    panels = std::min(panels, grains);
    for (int64_t panel = 0; panel < panels; ++panel)
      units.push_back({int(i), grains * panel / panels * grain,
                       std::min(outputs, grains * (panel + 1) / panels * grain)});
  }
  return units;
}

ffi::Error Multiply(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, bool transposed) {
  auto x = args.get<ffi::AnyBuffer>(0);
  if (!x.has_value() || x->dimensions().size() != 2 || args.size() != rets.size() + 1)
    return ffi::Error::InvalidArgument("products: x [B, K] and as many weights as results are wanted");
  const bool half = x->element_type() == ffi::DataType::BF16;
  if (!half && x->element_type() != ffi::DataType::F32)
    return ffi::Error::InvalidArgument("products: x must be float32 or bfloat16");
  std::vector<Product> products;
  int64_t bytes = 0;
  const int64_t count = x->dimensions()[0], inputs = x->dimensions()[1];
  for (size_t i = 0; i < rets.size(); ++i) {
    auto w = args.get<ffi::AnyBuffer>(i + 1);
    auto y = rets.get<ffi::AnyBuffer>(i);
    if (!w.has_value() || !y.has_value() || w->dimensions().size() != 2 || (*y)->dimensions().size() != 2)
      return ffi::Error::InvalidArgument("products: weights and results have two dimensions");
    const int64_t outputs = w->dimensions()[transposed ? 0 : 1];
    if (w->element_type() != x->element_type() || (*y)->element_type() != ffi::DataType::F32 ||
        w->dimensions()[transposed ? 1 : 0] != inputs || (*y)->dimensions()[0] != count ||
        (*y)->dimensions()[1] != outputs)
      return ffi::Error::InvalidArgument("products: shapes or dtypes do not fit");
    if (count * outputs == 0) continue;
    products.push_back({x->untyped_data(), w->untyped_data(), static_cast<float*>((*y)->untyped_data()), count,
                        inputs, outputs});
    bytes += inputs * outputs * (half ? 2 : 4);
  }
  if (products.empty()) return ffi::Error::Success();
  // A thread that has to be woken costs as much as reading some hundred kilobytes.
  const int64_t cost = bytes * std::max<int64_t>(1, count / 8);
  const int64_t threads = cost < (int64_t{1} << 19) ? 1 : std::max<int64_t>(pool.num_threads(), 1);
  Function* function;
  int64_t most, grain;
  bool tiled = false;
#if HAS_TILES
  tiled = half && tiles_allowed();
  if (tiled && transposed)
    for (const Product& product : products) tiled = tiled && product.outputs >= 2 * SIDE;
  if (tiled) {
    const Half* data = static_cast<const Half*>(x->untyped_data());
    const Half* prepared = transposed ? turned(data, count, inputs) : padded(data, count, inputs);
    for (Product& product : products) product.x = prepared;
    function = transposed ? tiled_rows : tiled_columns;
    grain = 32;
    most = transposed ? 512 : count <= 32 ? 512 : 128;
  }
#endif
  if (!tiled && transposed) {
    function = half ? rows<HalfRows> : rows<FloatRows>;
    grain = TILE_W;
    most = 128 * TILE_W;
  } else if (!tiled) {
    function = half ? columns<HalfColumns> : columns<FloatColumns>;
    grain = half ? HalfColumns::COLUMNS : FloatColumns::COLUMNS;
    // The sums of a panel stay in the first-level cache.
    most = std::clamp<int64_t>(32768 / (2 * BYTES * count), 4, 64) * grain;
  }
  const std::vector<Unit> units = split(products, most, grain, threads);
  run(function, products, units, pool, std::min<int64_t>(threads, units.size()) - 1);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(thinkprm_products, Multiply,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<bool>("transposed"));

extern "C" bool thinkprm_has_tiles() {
#if HAS_TILES
  return tiles_allowed();
#else
  return false;
#endif
}
