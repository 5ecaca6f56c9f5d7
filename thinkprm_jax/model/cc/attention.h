// Attention over the cache, for the few tokens that a step has of every row.
//
// One order of every sum: what a token gets depends on its query and on the keys and values of the tokens before it,
// in the order of the text. In which columns of the cache those stand, how long the cache is, how many tokens the
// step has, who is computed beside it and on which thread change no bit. And only what a token may read is read.

#pragma once

#include "sums.h"

namespace {

constexpr int64_t BLOCK = 64;  // positions that have a sum of their own first, so that few digits are lost
constexpr int KEYS = 32;       // whose scores are computed together
constexpr int QUERIES = 4;     // at a time

struct Attention {
  const float* q;  // [rows, tokens, heads, width]
  const void *keys, *values;  // [rows, kv_heads, length + columns, width]
  const int32_t* lengths;  // [rows]
  const bool* written;  // [rows, columns]; null: all of them
  int64_t column;
  float* output;  // as q
  int64_t rows, tokens, heads, kv_heads, length, columns, width;
  bool half;
  Half* narrowed = nullptr;  // the output in bfloat16, if it is wanted

  // The first of the columns that the step's tokens stand in.
  int64_t first_column() const { return std::clamp<int64_t>(column, 0, columns - tokens); }
};

// Where the tokens of a row stand that are read, in the order of the text; the step's own last.
int64_t places(const Attention& call, int64_t row, int32_t* to) {
  int64_t count = std::clamp<int64_t>(call.lengths[row], 0, call.length);
  for (int64_t i = 0; i < count; ++i) to[i] = int32_t(i);
  const bool* written = call.written + row * call.columns;
  const int64_t column = call.first_column();
  for (int64_t c = 0; c < column; ++c)
    if (!call.written || written[c]) to[count++] = int32_t(call.length + c);
  for (int64_t w = 0; w < call.tokens; ++w) to[count++] = int32_t(call.length + column + w);
  return count;
}

// Memory that is wanted soon: as many cache lines as a loop asks for, one at a time. A processor asks by itself only
// to the end of a page, which is some keys; and many questions at once would make it wait.
struct Sequence {
  const char* line;
  const char* end;

  INLINE void ask(int64_t count) {
    for (int64_t i = 0; i < count && line < end; ++i, line += 64) __builtin_prefetch(line, 0, 2);
  }
};

// Sixteen vectors of `width` numbers -> [width, KEYS], the first sixteen.
INLINE void turn(const float* const* from, int64_t width, float* to) {
  int64_t begin = 0;
#if defined(__AVX512F__)
  for (; begin + 16 <= width; begin += 16) {
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(from[i] + begin);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const __m512d p = _mm512_castps_pd(b[i + j]), q = _mm512_castps_pd(b[i + 2 + j]);
        a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, q));
        a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, q));
      }
    // a[4 g + c]: column c of each group of four columns, of the rows 4 g .. 4 g + 3.
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const __m512 first = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88), second = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
      const __m512 third = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd), fourth = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);
      _mm512_storeu_ps(to + (begin + c) * KEYS, _mm512_shuffle_f32x4(first, second, 0x88));
      _mm512_storeu_ps(to + (begin + 4 + c) * KEYS, _mm512_shuffle_f32x4(third, fourth, 0x88));
      _mm512_storeu_ps(to + (begin + 8 + c) * KEYS, _mm512_shuffle_f32x4(first, second, 0xdd));
      _mm512_storeu_ps(to + (begin + 12 + c) * KEYS, _mm512_shuffle_f32x4(third, fourth, 0xdd));
    }
  }
#endif
  for (; begin < width; ++begin)
    for (int i = 0; i < SIXTEEN; ++i) to[begin * KEYS + i] = from[i][begin];
}

// The scores of COUNT queries at the positions of `turned`.
template <int COUNT>
INLINE void score(const float* const* q, const float* turned, int64_t width, float* const* to, Sequence* ahead,
                  int64_t lines) {
  constexpr int TURNS = KEYS / LANES > 4 ? 2 : 1, VECTORS = KEYS / LANES / TURNS;  // as registers allow
  for (int turn = 0; turn < TURNS; ++turn, turned += VECTORS * LANES) {
    Vector sums[COUNT][VECTORS] = {};
    for (int64_t d = 0; d < width; ++d) {
      ahead->ask(lines);
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; ++v) {
        const Vector key = load(turned + d * KEYS + v * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < COUNT; ++i) sums[i][v] = sums[i][v] + key * q[i][d];
      }
    }
    for (int i = 0; i < COUNT; ++i)
      for (int v = 0; v < VECTORS; ++v) store(to[i] + (turn * VECTORS + v) * LANES, sums[i][v]);
  }
}

// sums [COUNT] of `width` numbers += the values of `count` positions, each by its weight.
template <int COUNT>
INLINE void weigh(const float* const* weights, const float* const* values, int64_t count, int64_t width,
                  float* const* sums, Sequence* ahead, int64_t lines) {
  constexpr int PART = 4;  // vectors at a time
  for (int64_t d = 0; d < width; d += PART * LANES) {
    const int64_t parts = std::min<int64_t>(PART, (width - d) / LANES);
    Vector here[COUNT][PART] = {};
    if (parts == PART) {
      for (int64_t t = 0; t < count; ++t) {
        ahead->ask(lines);
#pragma GCC unroll 4
        for (int p = 0; p < PART; ++p) {
          const Vector value = load(values[t] + d + p * LANES);
#pragma GCC unroll 8
          for (int i = 0; i < COUNT; ++i) here[i][p] = here[i][p] + value * weights[i][t];
        }
      }
    } else {
      for (int64_t t = 0; t < count; ++t)
        for (int p = 0; p < parts; ++p) {
          const Vector value = load(values[t] + d + p * LANES);
          for (int i = 0; i < COUNT; ++i) here[i][p] = here[i][p] + value * weights[i][t];
        }
    }
    for (int i = 0; i < COUNT; ++i)
      for (int p = 0; p < parts; ++p) {
        float* to = sums[i] + d + p * LANES;
        store(to, load(to) + here[i][p]);
      }
  }
}

template <template <int> class Function, class... Arguments>
INLINE void of_count(int64_t count, Arguments... arguments) {
  switch (count) {
    case 1: return Function<1>::call(arguments...);
    case 2: return Function<2>::call(arguments...);
    case 3: return Function<3>::call(arguments...);
    default: return Function<4>::call(arguments...);
  }
}
template <int COUNT>
struct Score {
  template <class... Arguments>
  static INLINE void call(Arguments... arguments) { score<COUNT>(arguments...); }
};
template <int COUNT>
struct Weigh {
  template <class... Arguments>
  static INLINE void call(Arguments... arguments) { weigh<COUNT>(arguments...); }
};

// The queries begin .. end of those of a row that read one head of keys; query i: token i / group of the step.
void attend(const Attention& call, int64_t row, int64_t head, int64_t begin, int64_t end) {
  const int64_t width = call.width, group = call.heads / call.kv_heads, queries = end - begin;
  int32_t* place = scratch<int32_t, 0>(call.length + call.columns + KEYS);
  const int64_t count = places(call, row, place), padded = (count + KEYS - 1) / KEYS * KEYS;
  for (int64_t t = count; t < padded; ++t) place[t] = place[count - 1];
  const int64_t first = (row * call.kv_heads + head) * (call.length + call.columns);
  auto vectors = [&](const void* data, int64_t from, int64_t number, float* room, const float** to) {
    for (int64_t t = 0; t < number; ++t) {
      const int64_t at = (first + place[from + t]) * width;
      if (!call.half) {
        to[t] = static_cast<const float*>(data) + at;
        continue;
      }
      widen(static_cast<const Half*>(data) + at, width, room + t * width);
      to[t] = room + t * width;
    }
  };
  const float** q = scratch<const float*, 1>(queries);
  float** output = scratch<float*, 2>(queries);
  float** scores = scratch<float*, 3>(queries);
  float* all_scores = scratch<float, 4>(queries * padded);
  float* totals = scratch<float, 5>(queries);
  for (int64_t i = 0; i < queries; ++i) {
    const int64_t token = (begin + i) / group, of_group = (begin + i) % group;
    const int64_t at = ((row * call.tokens + token) * call.heads + head * group + of_group) * width;
    q[i] = call.q + at, output[i] = call.output + at, scores[i] = all_scores + i * padded;
    std::fill(output[i], output[i] + width, 0.0f);
  }
  float* room = scratch<float, 6>(BLOCK * width);
  float* turned = scratch<float, 7>(KEYS * width);
  const float* found[BLOCK];
  const float* weights[QUERIES];
  float* here[QUERIES];
  const int64_t bytes = width * (call.half ? 2 : 4);
  // Of keys or values that stand one behind the other, as most do.
  auto ahead = [&](const void* data, int64_t from, int64_t number) {
    if (from + number > count) return Sequence{nullptr, nullptr};
    const char* begin = static_cast<const char*>(data) + (first + place[from]) * bytes;
    return Sequence{begin, begin + number * bytes};
  };
  for (int64_t t = 0; t < padded; t += KEYS) {
    for (int64_t of = 0; of < KEYS; of += SIXTEEN) {
      vectors(call.keys, t + of, SIXTEEN, room, found);
      turn(found, width, turned + of);
    }
    Sequence next = ahead(call.keys, t + KEYS, KEYS);
    for (int64_t i = 0; i < queries; i += QUERIES) {
      const int64_t some = std::min<int64_t>(QUERIES, queries - i);
      for (int64_t j = 0; j < some; ++j) here[j] = scores[i + j] + t;
      of_count<Score>(some, static_cast<const float* const*>(q + i), static_cast<const float*>(turned), width,
                      static_cast<float* const*>(here), &next, int64_t{i ? 0 : 2});
    }
  }
  for (int64_t i = 0; i < queries; ++i) {
    const int64_t unseen = call.tokens - 1 - (begin + i) / group;
    totals[i] = soften(scores[i], count - unseen, padded);
  }
  for (int64_t t = 0; t < count; t += BLOCK) {
    const int64_t number = std::min(BLOCK, count - t);
    vectors(call.values, t, number, room, found);
    Sequence next = ahead(call.values, t + BLOCK, BLOCK);
    for (int64_t i = 0; i < queries; i += QUERIES) {
      const int64_t some = std::min<int64_t>(QUERIES, queries - i);
      for (int64_t j = 0; j < some; ++j) weights[j] = scores[i + j] + t;
      of_count<Weigh>(some, static_cast<const float* const*>(weights), static_cast<const float* const*>(found), number,
                      width, static_cast<float* const*>(output + i), &next, i ? 0 : (bytes + 63) / 64);
    }
  }
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t d = 0; d < width; d += LANES) store(output[i] + d, load(output[i] + d) / all(totals[i]));
    if (call.narrowed) narrow(output[i], width, call.narrowed + (output[i] - call.output));
  }
}

// All of them, by as many threads as a team has. Some rows and heads that lie beside each other are one unit.
inline void attend(const Attention& call, Team& team, int64_t threads) {
  const int64_t queries = call.tokens * (call.heads / call.kv_heads), pairs = call.rows * call.kv_heads;
  const int64_t parts = std::clamp<int64_t>(threads / std::max<int64_t>(pairs, 1), 1, queries);
  const int64_t units = std::min(pairs, 8 * threads);
  team.run(units * parts, [&](int64_t i) {
    const int64_t unit = i / parts, part = i % parts;
    for (int64_t pair = pairs * unit / units; pair < pairs * (unit + 1) / units; ++pair)
      attend(call, pair / call.kv_heads, pair % call.kv_heads, queries * part / parts, queries * (part + 1) / parts);
  });
}

// Tokens of a text that go to their places in a row of the cache: `count` of a call's, from its token `first` on.
struct Piece {
  int64_t row, start, count, first;
};

// from [number, 3]: a row of the cache, the place of the first token, how many. A piece of row -1 is padding, as are the
// call's tokens behind the last one. false: one has no place.
inline bool read_pieces(const int32_t* from, int64_t number, int64_t rows, int64_t places, int64_t tokens,
                        std::vector<Piece>& pieces) {
  int64_t done = 0;
  for (int64_t i = 0; i < number; ++i, from += 3) {
    const Piece piece{from[0], from[1], from[2], done};
    if (!piece.count) continue;
    if (piece.count < 0 || piece.row < -1 || piece.row >= rows || piece.start < 0 || piece.start + piece.count > places ||
        done + piece.count > tokens)
      return false;
    if (piece.row >= 0) pieces.push_back(piece);
    done += piece.count;
  }
  return true;
}

// Attention of pieces, each behind what its row of the cache has. q and output: of all tokens, [N, H, h].
class PieceAttention {
 public:
  // shape: heads, kv_heads, width and half are taken from it, the arrays q, output and narrowed, and columns: places of
  // a row.
  PieceAttention(const std::vector<Piece>& pieces, const Attention& shape) : kv_heads_(shape.kv_heads) {
    constexpr int64_t TOGETHER = 32;  // tokens whose scores fit a second-level cache, for contexts of thousands
    for (const Piece& piece : pieces) {
      const int64_t parts = (piece.count + TOGETHER - 1) / TOGETHER;
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t begin = piece.count * part / parts, end = piece.count * (part + 1) / parts;
        const int64_t at = (piece.first + begin) * shape.heads * shape.width;
        Attention call = shape;
        call.q += at, call.output += at, call.narrowed += call.narrowed ? at : 0;
        call.lengths = &NONE, call.written = nullptr, call.column = piece.start + begin;
        call.rows = 1, call.tokens = end - begin, call.length = 0;
        line_bytes_ = shape.kv_heads * shape.columns * shape.width * (shape.half ? 2 : 4);
        calls_.push_back(call), rows_.push_back(piece.row);
      }
    }
    order_.resize(calls_.size());
    for (size_t i = 0; i < order_.size(); ++i) order_[i] = i;
    // The longest first: what is left at the end is short.
    auto work = [&](size_t i) { return (calls_[i].column + calls_[i].tokens) * calls_[i].tokens; };
    std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return work(a) > work(b); });
  }

  // keys, values: of all rows, with the tokens in them.
  void run(const void* keys, const void* values, Team& team) {
    for (size_t i = 0; i < calls_.size(); ++i) {
      calls_[i].keys = static_cast<const char*>(keys) + rows_[i] * line_bytes_;
      calls_[i].values = static_cast<const char*>(values) + rows_[i] * line_bytes_;
    }
    team.run(calls_.size() * kv_heads_, [&](int64_t i) {
      const Attention& call = calls_[order_[i / kv_heads_]];
      attend(call, 0, i % kv_heads_, 0, call.tokens * (call.heads / call.kv_heads));
    });
  }

 private:
  static constexpr int32_t NONE = 0;
  int64_t kv_heads_, line_bytes_ = 0;
  std::vector<Attention> calls_;
  std::vector<int64_t> rows_;
  std::vector<size_t> order_;
};

}  // namespace
