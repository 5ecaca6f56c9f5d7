// bfloat16 products by the tiles of AMX; see products.h.

#pragma once

#include "blocks.h"

#if defined(__AMX_BF16__) && defined(__AVX512BW__) && defined(__linux__)
#define HAS_TILES 1
#include <sys/syscall.h>
#include <unistd.h>

namespace {

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
}  // namespace
#endif
