// Products of activations with weights in blocks, on any processor; see products.h.

#pragma once

#include "kinds.h"

namespace {

// One product of a call. strides are in elements.
struct Product {
  const void* x;
  const void* w;
  float* y;
  int64_t rows, inputs, outputs;
  const float* scale = nullptr;  // of the columns of W, where it is int8
};

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

// Where a block begins, and what W has of it: fewer rows or columns at its end.
template <class Kind>
struct Block {
  const typename Kind::Weight* w;
  int64_t stride, rows, columns;

  int64_t steps() const { return (rows + Kind::ROWS - 1) / Kind::ROWS; }
};

// A block that is wanted soon, whose lines are asked for while this one is packed and multiplied: some in every step,
// since many questions at once make a processor wait.
constexpr int LINES = BYTES == 64 ? 4 : 1;  // of a step
struct Ahead {
  const char* from = nullptr;
  int64_t step = 0, lines[4] = {0, 64, 128, 192};

  // Lines begin .. end of step s.
  INLINE void ask(int64_t s, int begin, int end) const {
    for (int line = begin; line < end; ++line) __builtin_prefetch(from + s * step + lines[line], 0, 2);
  }
};

template <class Kind, bool TRANSPOSED>
INLINE Ahead ahead_of(const typename Kind::Weight* w, int64_t stride) {
  const int64_t bytes = stride * sizeof(typename Kind::Weight);
  Ahead ahead{reinterpret_cast<const char*>(w), TRANSPOSED ? bytes : Kind::ROWS * bytes};
  if (TRANSPOSED) {
    if (BYTES != 64) ahead.from = nullptr;
    if (sizeof(typename Kind::Weight) == 1)  // a column of a block is two lines, and there are more than steps
      ahead.lines[2] = WIDE / 2 * bytes, ahead.lines[3] = ahead.lines[2] + 64;
  } else if (sizeof(typename Kind::Weight) == 2) {
    ahead.lines[2] = (Kind::ROWS - 1) * bytes, ahead.lines[3] = ahead.lines[2] + 64;
  } else if (sizeof(typename Kind::Weight) == 1) {
    for (int line = 1; line < 4; ++line) ahead.lines[line] = std::min(line, Kind::ROWS - 1) * bytes;
  }
  return ahead;
}

// How many of a step's lines are asked for while a block is packed. For few rows that takes as long as multiplying.
template <class Kind>
INLINE int asked_in_packing(int64_t rows, const Ahead& ahead) {
  if (ahead.from == nullptr || LINES < 4) return 0;
  return rows <= 2 ? 3 : sizeof(typename Kind::Weight) < 4 && rows <= TILE_X ? 2 : 0;
}

template <class Kind, bool TRANSPOSED>
INLINE void pack_whole(const typename Kind::Weight* w, int64_t stride, int64_t steps, Vector* to, const Ahead& ahead,
                       int asked) {
  if constexpr (TRANSPOSED) {
    constexpr int EACH = LANES / TILE_W;  // steps whose lines are asked for beside a square
    int64_t asking = 0;
    for (int v = 0; v < TILE_W; ++v)
      for (int64_t s = 0; s < steps; s += LANES) {
        for (int i = 0; i < EACH; ++i, ++asking) ahead.ask(asking, 0, asked);
        Vector square[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) square[i] = Kind::along(w + (v * LANES + i) * stride + s * Kind::ROWS);
        turn(square);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) to[(s + i) * TILE_W + v] = square[i];
      }
  } else {
    for (int64_t s = 0; s < steps; ++s, w += Kind::ROWS * stride) {
      ahead.ask(s, 0, asked);
      Kind::across(w, stride, to + s * TILE_W);
    }
  }
}

// What W does not have is zero.
template <class Kind, bool TRANSPOSED>
void pack(const Block<Kind>& block, Vector* to, const Ahead& ahead, int asked) {
  using Weight = typename Kind::Weight;
  constexpr int UNIT = (TRANSPOSED ? LANES : 1) * Kind::ROWS;
  if (block.columns == WIDE && block.rows % UNIT == 0)
    return pack_whole<Kind, TRANSPOSED>(block.w, block.stride, block.steps(), to, ahead, asked);
  constexpr int DEEP = Kind::DEEP;
  Weight* part = scratch<Weight, 5>(DEEP * Kind::ROWS * WIDE);
  const int64_t lines = TRANSPOSED ? block.columns : block.rows, size = TRANSPOSED ? block.rows : block.columns;
  const int64_t width = TRANSPOSED ? DEEP * Kind::ROWS : WIDE;
  std::memset(part, 0, DEEP * Kind::ROWS * WIDE * sizeof(Weight));
  for (int64_t i = 0; i < lines; ++i) std::memcpy(part + i * width, block.w + i * block.stride, size * sizeof(Weight));
  pack_whole<Kind, TRANSPOSED>(part, width, block.steps(), to, ahead, asked);
}

// sums [COUNT, WIDE] += x [COUNT rows] times a packed block. The steps of a block have a sum of their own first:
// one running sum over thousands of inputs would lose more digits than XLA's products do.
template <class Kind, int COUNT>
void tile(const Vector* w, const float* x, int64_t x_stride, int64_t steps, Vector* sums, const Ahead& ahead,
          int from, int to) {
  typename Kind::Sum block[COUNT][TILE_W];
#pragma GCC unroll 8
  for (int b = 0; b < COUNT; ++b)
#pragma GCC unroll 4
    for (int n = 0; n < TILE_W; ++n) block[b][n] = Kind::start(x + b * x_stride);
  for (int64_t s = 0; s < steps; ++s, w += TILE_W) {
    ahead.ask(s, from, to);
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
    for (int n = 0; n < TILE_W; ++n)
      sums[b * TILE_W + n] = Kind::finish(sums[b * TILE_W + n], block[b][n], x + b * x_stride);
}

template <class Kind, int COUNT>
INLINE void tile_of(int64_t count, const Vector* w, const float* x, int64_t x_stride, int64_t steps, Vector* sums,
                    const Ahead& ahead, int from, int to) {
  if (count == COUNT) return tile<Kind, COUNT>(w, x, x_stride, steps, sums, ahead, from, to);
  if constexpr (COUNT > 1) tile_of<Kind, COUNT - 1>(count, w, x, x_stride, steps, sums, ahead, from, to);
}

// All rows of x with a packed block, as evenly in tiles as they go. asked: lines of a step that were asked for already.
template <class Kind>
void tiles_of(int64_t count, const Vector* w, const float* x, int64_t x_stride, int64_t steps, Vector* sums,
              const Ahead& ahead, int asked) {
  const int64_t tiles = (count + TILE_X - 1) / TILE_X;
  const int64_t asking = ahead.from == nullptr ? 0 : tiles >= LINES ? LINES : tiles >= 2 && LINES > 1 ? 2 : 1;
  for (int64_t t = 0, b = 0; t < tiles; ++t) {
    const int64_t stop = count * (t + 1) / tiles;
    const int from = t < asking ? std::max<int>(asked, LINES * t / asking) : 0, to = t < asking ? LINES * (t + 1) / asking : 0;
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
  constexpr int64_t ROWS = Kind::DEEP * Kind::ROWS;
  const int64_t inputs = product.inputs, outputs = product.outputs, stride = TRANSPOSED ? inputs : outputs;
  const int64_t groups = (end - begin + WIDE - 1) / WIDE, deep = (inputs + ROWS - 1) / ROWS, blocks = groups * deep;
  const int64_t x_stride = Kind::SPAN == Kind::DEEP ? (inputs + Kind::ROWS - 1) / Kind::ROWS : deep * Kind::SPAN;
  const Weight* w = static_cast<const Weight*>(product.w);
  Vector* packed = scratch<Vector, 1>(Kind::DEEP * TILE_W);
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
      const int asked = asked_in_packing<Kind>(count, ahead);
      pack<Kind, TRANSPOSED>(block, packed, ahead, asked);
      tiles_of<Kind>(count, packed, x + k / ROWS * Kind::SPAN, x_stride, block.steps(), sums + (n - begin) / WIDE * count * TILE_W,
                     ahead, asked);
    }
    for (int64_t b = 0; b < count; ++b)
      for (int64_t n = begin; n < end; n += WIDE) {
        float* to = product.y + (top + b) * outputs + n;
        const float* from = reinterpret_cast<const float*>(sums + ((n - begin) / WIDE * count + b) * TILE_W);
        const int64_t width = std::min<int64_t>(WIDE, end - n);
        if (product.scale == nullptr) {
          std::memcpy(to, from, width * sizeof(float));
          continue;
        }
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES) store(to + i, load(from + i) * load(product.scale + n + i));
        for (; i < width; ++i) to[i] = from[i] * product.scale[n + i];
      }
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
  widen(from, rows * inputs, to);
  return to;
}

}  // namespace
