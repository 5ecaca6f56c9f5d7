// Products of activations with weights, y [B, N] = x [B, K] W, for the few rows of a decode step.
//
// A step reads every weight once, so its time is that of the memory, if nothing else is in the way. W stays as it
// is stored, [K, N] or [N, K], float32 or bfloat16; nothing is packed beforehand or held twice.
//
// One order of every sum: an element of y depends on its row of x and its column of W alone, never on how many
// rows there are, on the threads or on where a panel of columns begins. So a row's results are the same, bit for
// bit, whoever is computed beside it.
//
//   Blocks    Both kinds of W: a block of it is packed into the first-level cache, in the order in which it is
//             multiplied, and all rows of x with it, a tile of sums in registers. What is wanted soon is asked for
//             meanwhile, so that memory and arithmetic work at the same time.
//   Tiles     bfloat16 of either kind where the processor has AMX.
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
constexpr int BYTES = 64, TILE_X = 6, TILE_W = 4;
#elif defined(__AVX__)
constexpr int BYTES = 32, TILE_X = 6, TILE_W = 2;
#elif defined(__aarch64__)
constexpr int BYTES = 16, TILE_X = 6, TILE_W = 4;
#else
constexpr int BYTES = 16, TILE_X = 6, TILE_W = 2;
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

// ---- Blocks of W -----------------------------------------------------------------------------------------------

// A block is DEEP steps of WIDE columns, packed: of every step TILE_W vectors. A step is one row of W or a pair of
// them; x has four bytes for it.
constexpr int DEEP = 64, WIDE = TILE_W * LANES;

#if defined(__clang__)
#define ZIP(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t Places __attribute__((vector_size(BYTES)));
#define ZIP(a, b, ...) __builtin_shuffle(a, b, Places{__VA_ARGS__})
#endif
#if defined(__AVX512F__)
INLINE Vector low(Vector a, Vector b) { return ZIP(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23); }
INLINE Vector high(Vector a, Vector b) {
  return ZIP(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif defined(__AVX__)
INLINE Vector low(Vector a, Vector b) { return ZIP(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
INLINE Vector high(Vector a, Vector b) { return ZIP(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
INLINE Vector low(Vector a, Vector b) { return ZIP(a, b, 0, 4, 1, 5); }
INLINE Vector high(Vector a, Vector b) { return ZIP(a, b, 2, 6, 3, 7); }
#endif

// LANES vectors: rows become columns.
INLINE void turn(Vector* rows) {
#pragma GCC unroll 4
  for (int stage = 1; stage < LANES; stage *= 2) {
    Vector mixed[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES / 2; ++i) {
      mixed[2 * i] = low(rows[i], rows[i + LANES / 2]);
      mixed[2 * i + 1] = high(rows[i], rows[i + LANES / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) rows[i] = mixed[i];
  }
}

struct Floats {
  using Weight = float;
  static constexpr int ROWS = 1;  // of W in a step
  static INLINE Vector along(const float* w) { return load(w); }
  static INLINE void across(const float* w, int64_t, Vector* to) {
    for (int v = 0; v < TILE_W; ++v) to[v] = load(w + v * LANES);
  }
  static INLINE float factor(const float* x) { return *x; }
  static INLINE Vector add(Vector sum, Vector w, float x) { return sum + w * x; }
};

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
struct Halves {  // pairs of them, multiplied as they are
  using Weight = Half;
  static constexpr int ROWS = 2;
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
struct Halves {  // widened when they are packed
  using Weight = Half;
  static constexpr int ROWS = 1;
  static INLINE Vector along(const Half* w) {
    typedef Half Some __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
    return reinterpret_cast<Vector>(
        __builtin_convertvector(*reinterpret_cast<const Some*>(w), Bits) << 16);
  }
  static INLINE void across(const Half* w, int64_t, Vector* to) {
    for (int v = 0; v < TILE_W; ++v) to[v] = along(w + v * LANES);
  }
  static INLINE float factor(const float* x) { return *x; }
  static INLINE Vector add(Vector sum, Vector w, float x) { return sum + w * x; }
};
#endif

// Where a block begins, and what W has of it: fewer rows or columns at its end.
template <class Kind>
struct Block {
  const typename Kind::Weight* w;
  int64_t stride, rows, columns;

  int64_t steps() const { return (rows + Kind::ROWS - 1) / Kind::ROWS; }
};

template <class Kind, bool TRANSPOSED>
INLINE void pack_whole(const typename Kind::Weight* w, int64_t stride, int64_t steps, Vector* to) {
  if constexpr (TRANSPOSED) {
    for (int v = 0; v < TILE_W; ++v)
      for (int64_t s = 0; s < steps; s += LANES) {
        Vector square[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) square[i] = Kind::along(w + (v * LANES + i) * stride + s * Kind::ROWS);
        turn(square);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) to[(s + i) * TILE_W + v] = square[i];
      }
  } else {
    for (int64_t s = 0; s < steps; ++s, w += Kind::ROWS * stride) Kind::across(w, stride, to + s * TILE_W);
  }
}

// What W does not have is zero.
template <class Kind, bool TRANSPOSED>
void pack(const Block<Kind>& block, Vector* to) {
  using Weight = typename Kind::Weight;
  constexpr int UNIT = (TRANSPOSED ? LANES : 1) * Kind::ROWS;
  if (block.columns == WIDE && block.rows % UNIT == 0)
    return pack_whole<Kind, TRANSPOSED>(block.w, block.stride, block.steps(), to);
  Weight* part = scratch<Weight, 5>(DEEP * Kind::ROWS * WIDE);
  const int64_t lines = TRANSPOSED ? block.columns : block.rows, size = TRANSPOSED ? block.rows : block.columns;
  const int64_t width = TRANSPOSED ? DEEP * Kind::ROWS : WIDE;
  std::memset(part, 0, DEEP * Kind::ROWS * WIDE * sizeof(Weight));
  for (int64_t i = 0; i < lines; ++i) std::memcpy(part + i * width, block.w + i * block.stride, size * sizeof(Weight));
  pack_whole<Kind, TRANSPOSED>(part, width, block.steps(), to);
}

// A block that is wanted soon, whose lines are asked for while this one is multiplied: some in every step.
constexpr int LINES = BYTES == 64 ? 4 : 1;
struct Ahead {
  const char* from = nullptr;
  int64_t step = 0, lines[4] = {0, 64, 128, 192};
};

template <class Kind, bool TRANSPOSED>
INLINE Ahead ahead_of(const typename Kind::Weight* w, int64_t stride) {
  const int64_t bytes = stride * sizeof(typename Kind::Weight);
  if (TRANSPOSED) return {BYTES == 64 ? reinterpret_cast<const char*>(w) : nullptr, bytes};
  Ahead ahead{reinterpret_cast<const char*>(w), Kind::ROWS * bytes};
  if (sizeof(typename Kind::Weight) == 2) ahead.lines[2] = (Kind::ROWS - 1) * bytes, ahead.lines[3] = ahead.lines[2] + 64;
  return ahead;
}

// sums [COUNT, WIDE] += x [COUNT rows] times a packed block. The steps of a block have a sum of their own first:
// one running sum over thousands of inputs would lose more digits than XLA's products do.
template <class Kind, int COUNT>
void tile(const Vector* w, const float* x, int64_t x_stride, int64_t steps, Vector* sums, const Ahead& ahead,
          int from, int to) {
  Vector block[COUNT][TILE_W] = {};
  const char* next = ahead.from;
  for (int64_t s = 0; s < steps; ++s, w += TILE_W, next += ahead.step) {
    for (int line = from; line < to; ++line) __builtin_prefetch(next + ahead.lines[line], 0, 2);
    Vector here[TILE_W];
#pragma GCC unroll 4
    for (int n = 0; n < TILE_W; ++n) here[n] = w[n];
#pragma GCC unroll 8
    for (int b = 0; b < COUNT; ++b) {
      const auto factor = Kind::factor(x + b * x_stride + s);
#pragma GCC unroll 4
      for (int n = 0; n < TILE_W; ++n) block[b][n] = Kind::add(block[b][n], here[n], factor);
    }
  }
#pragma GCC unroll 8
  for (int b = 0; b < COUNT; ++b)
#pragma GCC unroll 4
    for (int n = 0; n < TILE_W; ++n) sums[b * TILE_W + n] = sums[b * TILE_W + n] + block[b][n];
}

template <class Kind, int COUNT>
INLINE void tile_of(int64_t count, const Vector* w, const float* x, int64_t x_stride, int64_t steps, Vector* sums,
                    const Ahead& ahead, int from, int to) {
  if (count == COUNT) return tile<Kind, COUNT>(w, x, x_stride, steps, sums, ahead, from, to);
  if constexpr (COUNT > 1) tile_of<Kind, COUNT - 1>(count, w, x, x_stride, steps, sums, ahead, from, to);
}

// All rows of x with a packed block, as evenly in tiles as they go.
template <class Kind>
void tiles_of(int64_t count, const Vector* w, const float* x, int64_t x_stride, int64_t steps, Vector* sums,
              const Ahead& ahead) {
  const int64_t tiles = (count + TILE_X - 1) / TILE_X;
  const int64_t asking = ahead.from == nullptr ? 0 : tiles >= LINES ? LINES : tiles >= 2 && LINES > 1 ? 2 : 1;
  for (int64_t t = 0, b = 0; t < tiles; ++t) {
    const int64_t stop = count * (t + 1) / tiles;
    const int from = t < asking ? LINES * t / asking : 0, to = t < asking ? LINES * (t + 1) / asking : 0;
    tile_of<Kind, TILE_X>(stop - b, w, x + b * x_stride, x_stride, steps, sums + b * TILE_W, ahead, from, to);
    b = stop;
  }
}

// Columns begin .. end of y. W [K, N] is read from row to row, W [N, K] from one group of columns to the next, in
// both cases as it lies in memory.
template <class Kind, bool TRANSPOSED>
void columns(const Product& product, int64_t begin, int64_t end) {
  using Weight = typename Kind::Weight;
  constexpr int64_t HIGH = 128, NEXT = 2;  // rows of x at a time; the block to ask for is the next but one
  constexpr int64_t ROWS = DEEP * Kind::ROWS;
  const int64_t inputs = product.inputs, outputs = product.outputs, stride = TRANSPOSED ? inputs : outputs;
  const int64_t groups = (end - begin + WIDE - 1) / WIDE, deep = (inputs + ROWS - 1) / ROWS, blocks = groups * deep;
  const int64_t x_stride = (inputs + Kind::ROWS - 1) / Kind::ROWS;
  const Weight* w = static_cast<const Weight*>(product.w);
  Vector* packed = scratch<Vector, 1>(DEEP * TILE_W);
  auto place = [&](int64_t i, int64_t& k, int64_t& n) {
    k = (TRANSPOSED ? i % deep : i / groups) * ROWS, n = begin + (TRANSPOSED ? i / deep : i % groups) * WIDE;
    return w + (TRANSPOSED ? n * stride + k : k * stride + n);
  };
  for (int64_t top = 0; top < product.rows; top += HIGH) {
    const int64_t count = std::min(HIGH, product.rows - top);
    const float* x = static_cast<const float*>(product.x) + top * x_stride;
    Vector* sums = scratch<Vector, 0>(groups * count * TILE_W);
    std::fill(sums, sums + groups * count * TILE_W, Vector{});
    for (int64_t i = 0, k, n; i < blocks; ++i) {
      const Weight* here = place(i, k, n);
      const Block<Kind> block{here, stride, std::min(ROWS, inputs - k), std::min<int64_t>(WIDE, end - n)};
      Ahead ahead;
      int64_t next_k, next_n;
      if (i + NEXT < blocks) ahead = ahead_of<Kind, TRANSPOSED>(place(i + NEXT, next_k, next_n), stride);
      pack<Kind, TRANSPOSED>(block, packed);
      tiles_of<Kind>(count, packed, x + k / Kind::ROWS, x_stride, block.steps(), sums + (n - begin) / WIDE * count * TILE_W,
                     ahead);
    }
    for (int64_t b = 0; b < count; ++b)
      for (int64_t n = begin; n < end; n += WIDE)
        std::memcpy(product.y + (top + b) * outputs + n, sums + ((n - begin) / WIDE * count + b) * TILE_W,
                    std::min<int64_t>(WIDE, end - n) * sizeof(float));
  }
}

// x as the tiles want it: pairs that are whole, or floats.
const void* prepared(const void* x, int64_t rows, int64_t inputs, bool half) {
  if (!half || (Halves::ROWS == 2 && inputs % 2 == 0)) return x;
  const Half* from = static_cast<const Half*>(x);
  if (Halves::ROWS == 2) {
    const int64_t width = inputs + 1;
    Half* to = scratch<Half, 2>(rows * width);
    for (int64_t b = 0; b < rows; ++b) {
      std::memcpy(to + b * width, from + b * inputs, inputs * sizeof(Half));
      to[b * width + inputs] = 0;
    }
    return to;
  }
  float* to = scratch<float, 2>(rows * inputs);
  for (int64_t i = 0; i < rows * inputs; ++i) to[i] = widen(from[i]);
  return to;
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
  int64_t all = 0;
  for (const Product& product : products) all += product.outputs;
  most = std::clamp<int64_t>((all + threads - 1) / threads, grain, most);
  for (size_t i = 0; i < products.size(); ++i) {
    const int64_t outputs = products[i].outputs, grains = (outputs + grain - 1) / grain;
    int64_t panels = (outputs + most - 1) / most;
    if (products.size() == 1) panels = (panels + threads - 1) / threads * threads;
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
  if (!tiled) {
    const void* data = prepared(x->untyped_data(), count, inputs, half);
    for (Product& product : products) product.x = data;
    function = transposed ? (half ? columns<Halves, true> : columns<Floats, true>)
                          : (half ? columns<Halves, false> : columns<Floats, false>);
    grain = WIDE;
    most = count <= 32 ? 1024 : 256;  // the sums of a panel stay in the second-level cache
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
