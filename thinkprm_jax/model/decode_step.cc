// What a decode step computes beside products with weights: attention over the cache, for the few tokens that a step
// has of every row, and sums over a token's numbers. And attention of pieces of texts, each behind what a row of the
// cache has of it.
//
// One order of every sum: what a token gets depends on its query and on the keys and values of the tokens before it,
// in the order of the text. In which columns of the cache those stand, how long the cache is, how many tokens the
// step has, who is computed beside it and on which thread change no bit. And only what a token may read is read.
//
// It is compiled on the machine that runs it (-march=native), so the widths below are that machine's.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

namespace ffi = xla::ffi;

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int LANES = BYTES / 4;
constexpr int SIXTEEN = 16;  // numbers that have a sum of their own, whatever the width
constexpr int VECTORS = SIXTEEN / LANES;
constexpr int64_t BLOCK = 64;  // positions that have a sum of their own first, so that few digits are lost
constexpr int KEYS = 32;  // whose scores are computed together
constexpr int QUERIES = 4;     // at a time

typedef float Vector __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef uint16_t Half;  // the bits of a bfloat16

#define INLINE inline __attribute__((always_inline))

INLINE Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
INLINE void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
INLINE Vector all(float value) { return Vector{} + value; }
INLINE Vector larger(Vector a, Vector b) { return a > b ? a : b; }

template <class T, int purpose>
T* scratch(size_t count) {  // memory of a thread, kept from call to call
  struct alignas(64) Line {
    char bytes[64];
  };
  thread_local std::vector<Line> lines;
  const size_t needed = (count * sizeof(T) + 63) / 64;
  if (lines.size() < needed) lines.resize(needed);
  return reinterpret_cast<T*>(lines.data());
}

// exp of x <= 0, within two units of the last place; 0 below -87. What is no number stays none.
INLINE Vector exponential(Vector x) {
  const Vector shift = all(12582912.0f);  // 1.5 * 2^23: what is added to it is rounded to a whole number
  const Vector floor = all(-87.0f);
  const Vector bounded = larger(x, floor);
  const Vector shifted = bounded * all(1.44269504f) + shift;
  const Vector whole = shifted - shift;
  const Vector rest = (bounded - whole * all(0.693359375f)) - whole * all(-2.12194440e-4f);
  Vector y = all(1.9875691500e-4f);
  y = y * rest + all(1.3981999507e-3f);
  y = y * rest + all(8.3334519073e-3f);
  y = y * rest + all(4.1665795894e-2f);
  y = y * rest + all(1.6666665459e-1f);
  y = y * rest + all(5.0000001201e-1f);
  y = y * rest * rest + rest + all(1.0f);
  const Ints power = reinterpret_cast<Ints>(shifted) - reinterpret_cast<Ints>(shift);
  const Vector scaled = reinterpret_cast<Vector>(reinterpret_cast<Ints>(y) + (power << 23));
  return x == x ? (x < floor ? Vector{} : scaled) : x;
}

struct Call {
  const float* q;  // [rows, tokens, heads, width]
  const void *keys, *values;  // [rows, kv_heads, length + columns, width]
  const int32_t* lengths;  // [rows]
  const bool* written;  // [rows, columns]; null: all of them
  int64_t column;
  float* output;  // as q
  int64_t rows, tokens, heads, kv_heads, length, columns, width;
  bool half;
};

// Where the tokens of a row stand that are read, in the order of the text; the step's own last.
int64_t places(const Call& call, int64_t row, int32_t* to) {
  int64_t count = std::clamp<int64_t>(call.lengths[row], 0, call.length);
  for (int64_t i = 0; i < count; ++i) to[i] = int32_t(i);
  const bool* written = call.written + row * call.columns;
  const int64_t column = std::clamp<int64_t>(call.column, 0, call.columns - call.tokens);
  for (int64_t c = 0; c < column; ++c)
    if (!call.written || written[c]) to[count++] = int32_t(call.length + c);
  for (int64_t w = 0; w < call.tokens; ++w) to[count++] = int32_t(call.length + column + w);
  return count;
}

// count: a multiple of sixteen.
INLINE void widen(const Half* from, int64_t count, float* to) {
  typedef Half Some __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(BYTES)));
  for (int64_t i = 0; i < count; i += LANES)
    store(to + i, reinterpret_cast<Vector>(__builtin_convertvector(*reinterpret_cast<const Some*>(from + i), Bits) << 16));
}

// Memory that is wanted soon: as many cache lines as a loop asks for, one at a time. A processor asks by itself only
// to the end of a page, which is some keys; and many questions at once would make it wait.
struct Ahead {
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
INLINE void score(const float* const* q, const float* turned, int64_t width, float* const* to, Ahead* ahead,
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
                  float* const* sums, Ahead* ahead, int64_t lines) {
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

// The sum of sixteen numbers.
INLINE float total(const Vector* sums) {
  float lanes[SIXTEEN];
  for (int v = 0; v < VECTORS; ++v) store(lanes + v * LANES, sums[v]);
  for (int step = SIXTEEN / 2; step; step /= 2)
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  return lanes[0];
}

// count: a multiple of sixteen.
INLINE float maximum(const float* numbers, int64_t count) {
  Vector most = all(-__builtin_inff());
  for (int64_t t = 0; t < count; t += LANES) most = larger(most, load(numbers + t));
  float largest = most[0];
  for (int i = 1; i < LANES; ++i) largest = std::max(largest, most[i]);
  return largest;
}

// Scores of `count` positions -> their exponentials, 0 behind them. Returns: the sum.
float soften(float* scores, int64_t count, int64_t padded) {
  for (int64_t t = count; t < padded; ++t) scores[t] = -__builtin_inff();
  const float largest = maximum(scores, padded);
  Vector sums[VECTORS] = {};
  for (int64_t t = 0; t < padded; t += SIXTEEN)
    for (int v = 0; v < VECTORS; ++v) {
      const Vector weight = exponential(load(scores + t + v * LANES) - all(largest));
      store(scores + t + v * LANES, weight);
      sums[v] = sums[v] + weight;
    }
  return total(sums);
}

// sum x^2 of `width` numbers.
float squares(const float* x, int64_t width) {
  Vector sums[VECTORS] = {};
  float last[SIXTEEN] = {};
  for (int64_t d = 0; d < width; d += SIXTEEN) {
    const float* from = x + d;
    if (d + SIXTEEN > width) from = static_cast<float*>(std::memcpy(last, x + d, (width - d) * sizeof(float)));
    for (int v = 0; v < VECTORS; ++v) sums[v] = sums[v] + load(from + v * LANES) * load(from + v * LANES);
  }
  return total(sums);
}

// log sum exp x of `width` numbers; blocks of them have a sum of their own first.
float log_sum_exp(const float* x, int64_t width) {
  constexpr int64_t LONG = 2048;
  float last[SIXTEEN];
  std::fill(last, last + SIXTEEN, -__builtin_inff());
  const int64_t whole = width / SIXTEEN * SIXTEEN;
  std::memcpy(last, x + whole, (width - whole) * sizeof(float));
  const float largest = std::max(maximum(x, whole), maximum(last, SIXTEEN));
  if (!(largest > -__builtin_inff() && largest < __builtin_inff())) {
    for (int64_t d = 0; d < width; ++d)
      if (x[d] != x[d]) return x[d];
    return largest;
  }
  Vector sums[VECTORS] = {};
  for (int64_t begin = 0; begin < width; begin += LONG) {
    Vector here[VECTORS] = {};
    for (int64_t d = begin; d < std::min(begin + LONG, width); d += SIXTEEN)
      for (int v = 0; v < VECTORS; ++v)
        here[v] = here[v] + exponential(load((d < whole ? x + d : last) + v * LANES) - all(largest));
    for (int v = 0; v < VECTORS; ++v) sums[v] = sums[v] + here[v];
  }
  return largest + std::log(total(sums));
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
void attend(const Call& call, int64_t row, int64_t head, int64_t begin, int64_t end) {
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
    if (from + number > count) return Ahead{nullptr, nullptr};
    const char* begin = static_cast<const char*>(data) + (first + place[from]) * bytes;
    return Ahead{begin, begin + number * bytes};
  };
  for (int64_t t = 0; t < padded; t += KEYS) {
    for (int64_t of = 0; of < KEYS; of += SIXTEEN) {
      vectors(call.keys, t + of, SIXTEEN, room, found);
      turn(found, width, turned + of);
    }
    Ahead next = ahead(call.keys, t + KEYS, KEYS);
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
    Ahead next = ahead(call.values, t + BLOCK, BLOCK);
    for (int64_t i = 0; i < queries; i += QUERIES) {
      const int64_t some = std::min<int64_t>(QUERIES, queries - i);
      for (int64_t j = 0; j < some; ++j) weights[j] = scores[i + j] + t;
      of_count<Weigh>(some, static_cast<const float* const*>(weights), static_cast<const float* const*>(found), number,
                      width, static_cast<float* const*>(output + i), &next, i ? 0 : (bytes + 63) / 64);
    }
  }
  for (int64_t i = 0; i < queries; ++i)
    for (int64_t d = 0; d < width; ++d) output[i][d] /= totals[i];
}

// part(i) for i < count. Parts are taken by this thread and by whichever of XLA's come in time; one that comes late
// finds nothing left and touches nothing. So this thread never waits for one that has not begun.
template <class Part>
void run(const Part& part, int64_t count, ffi::ThreadPool& pool, int64_t helpers) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto shared = std::make_shared<Shared>();
  const Part* of = &part;
  auto work = [shared, of, count] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < count; shared->done.fetch_add(1, std::memory_order_release))
      (*of)(i);
  };
  for (int64_t i = 0; i < helpers; ++i) {
    auto copy = work;
    pool.Schedule(std::move(copy));
  }
  work();
  for (int turns = 0; shared->done.load(std::memory_order_acquire) < count; ++turns)
    if (turns > 10000) std::this_thread::yield();
}

ffi::Error Attend(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> q, ffi::AnyBuffer keys, ffi::AnyBuffer values,
                  ffi::Buffer<ffi::S32> lengths, ffi::Buffer<ffi::PRED> written, ffi::Buffer<ffi::S32> column,
                  ffi::ResultBuffer<ffi::F32> output) {
  const auto of_q = q.dimensions(), of_keys = keys.dimensions(), of_written = written.dimensions();
  if (of_q.size() != 4 || of_keys.size() != 4 || of_written.size() != 2)
    return ffi::Error::InvalidArgument("attention: q [B, W, H, h], keys and values [B, K, S + C, h], written [B, C]");
  Call call{q.typed_data(), keys.untyped_data(), values.untyped_data(), lengths.typed_data(), written.typed_data(),
            column.typed_data()[0], output->typed_data(), of_q[0], of_q[1], of_q[2], of_keys[1],
            of_keys[2] - of_written[1], of_written[1], of_q[3], keys.element_type() == ffi::DataType::BF16};
  if ((!call.half && keys.element_type() != ffi::DataType::F32) || values.element_type() != keys.element_type() ||
      call.width % SIXTEEN || call.heads % call.kv_heads || call.length < 0 || call.tokens > call.columns ||
      of_keys[0] != call.rows || of_written[0] != call.rows || of_keys[3] != call.width)
    return ffi::Error::InvalidArgument("attention: shapes or dtypes do not fit");
  int64_t read = 0;
  for (int64_t row = 0; row < call.rows; ++row) read += call.lengths[row] + call.column + call.tokens;
  // A thread that has to be woken costs as much as reading some hundred kilobytes.
  const int64_t cost = read * call.kv_heads * call.width * 8 * std::max<int64_t>(1, call.tokens / 2);
  const int64_t threads = cost < (int64_t{1} << 19) ? 1 : std::max<int64_t>(pool.num_threads(), 1);
  const int64_t queries = call.tokens * (call.heads / call.kv_heads), pairs = call.rows * call.kv_heads;
  const int64_t parts = std::clamp<int64_t>(threads / std::max<int64_t>(pairs, 1), 1, queries);
  const auto part = [&](int64_t i) {
    const int64_t of_pair = i % parts, head = i / parts % call.kv_heads, row = i / parts / call.kv_heads;
    attend(call, row, head, queries * of_pair / parts, queries * (of_pair + 1) / parts);
  };
  if (pairs) run(part, pairs * parts, pool, std::min(threads, pairs * parts) - 1);
  return ffi::Error::Success();
}

// Tokens of pieces, one piece behind the other, go to their places in the cache, and attend to what stands before
// them and to themselves. pieces [M, 3]: a row of the cache, the place of the first token, how many. Of a piece of row
// -1, and of what is left of the N tokens, nothing is written and the output is zero.
ffi::Error AttendPieces(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> q, ffi::AnyBuffer new_keys, ffi::AnyBuffer new_values,
                        ffi::AnyBuffer, ffi::AnyBuffer, ffi::Buffer<ffi::S32> pieces, ffi::ResultBuffer<ffi::F32> output,
                        ffi::Result<ffi::AnyBuffer> keys, ffi::Result<ffi::AnyBuffer> values) {
  constexpr int64_t TOGETHER = 32;  // tokens whose scores fit a second-level cache, for contexts of thousands
  const auto of_q = q.dimensions(), of_new = new_keys.dimensions(), of_keys = keys->dimensions();
  const auto type = keys->element_type();
  if (of_q.size() != 3 || of_new.size() != 3 || of_keys.size() != 4 || pieces.dimensions().size() != 2 ||
      pieces.dimensions()[1] != 3 || of_new[0] != of_q[0] || of_new[1] != of_keys[1] || of_new[2] != of_q[2] ||
      of_keys[3] != of_q[2] || of_q[2] % SIXTEEN || of_q[1] % of_keys[1] || new_keys.element_type() != type ||
      new_values.element_type() != type || values->element_type() != type ||
      (type != ffi::DataType::F32 && type != ffi::DataType::BF16))
    return ffi::Error::InvalidArgument("attention of pieces: shapes or dtypes do not fit");
  const bool half = type == ffi::DataType::BF16;
  const int64_t tokens = of_q[0], heads = of_q[1], kv_heads = of_keys[1], places = of_keys[2], width = of_q[2];
  const int64_t bytes = width * (half ? 2 : 4);
  static const int32_t none = 0;
  std::vector<Call> calls;
  int64_t done = 0;
  const int32_t* piece = pieces.typed_data();
  for (int64_t i = 0; i < pieces.dimensions()[0]; ++i, piece += 3) {
    const int64_t row = piece[0], start = piece[1], count = piece[2];
    if (!count) continue;
    if (count < 0 || row < -1 || row >= of_keys[0] || start < 0 || start + count > places || done + count > tokens)
      return ffi::Error::InvalidArgument("attention of pieces: a piece has no place");
    if (row < 0) {
      std::fill_n(output->typed_data() + done * heads * width, count * heads * width, 0.0f);
      done += count;
      continue;
    }
    for (int64_t t = 0; t < count; ++t)
      for (int64_t head = 0; head < kv_heads; ++head) {
        const int64_t from = ((done + t) * kv_heads + head) * bytes;
        const int64_t to = ((row * kv_heads + head) * places + start + t) * bytes;
        std::memcpy(static_cast<char*>(keys->untyped_data()) + to, static_cast<const char*>(new_keys.untyped_data()) + from, bytes);
        std::memcpy(static_cast<char*>(values->untyped_data()) + to, static_cast<const char*>(new_values.untyped_data()) + from, bytes);
      }
    const int64_t parts = (count + TOGETHER - 1) / TOGETHER;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t begin = count * part / parts, end = count * (part + 1) / parts, at = (done + begin) * heads * width;
      const int64_t line = row * kv_heads * places * bytes;
      calls.push_back({q.typed_data() + at, static_cast<char*>(keys->untyped_data()) + line,
                       static_cast<char*>(values->untyped_data()) + line, &none, nullptr, start + begin,
                       output->typed_data() + at, 1, end - begin, heads, kv_heads, 0, places, width, half});
    }
    done += count;
  }
  std::fill(output->typed_data() + done * heads * width, output->typed_data() + tokens * heads * width, 0.0f);
  // The longest first: what is left at the end is short.
  std::stable_sort(calls.begin(), calls.end(), [](const Call& a, const Call& b) {
    return (a.column + a.tokens) * a.tokens > (b.column + b.tokens) * b.tokens;
  });
  const auto part = [&](int64_t i) {
    const Call& call = calls[i / kv_heads];
    attend(call, 0, i % kv_heads, 0, call.tokens * (heads / kv_heads));
  };
  const int64_t parts = int64_t(calls.size()) * kv_heads;
  if (parts) run(part, parts, pool, std::min<int64_t>(std::max<int64_t>(pool.num_threads(), 1), parts) - 1);
  return ffi::Error::Success();
}

// x [rows, width] -> [rows].
ffi::Error Sum(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> y, bool exponentials) {
  const auto shape = x.dimensions();
  if (shape.size() != 2 || y->dimensions().size() != 1 || y->dimensions()[0] != shape[0])
    return ffi::Error::InvalidArgument("sums: x [B, N] and a number for each row");
  const int64_t rows = shape[0], width = shape[1];
  const float* from = x.typed_data();
  float* to = y->typed_data();
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1)), parts = (rows + grain - 1) / grain;
  const auto part = [=](int64_t i) {
    for (int64_t row = i * grain; row < std::min(rows, (i + 1) * grain); ++row)
      to[row] = exponentials ? log_sum_exp(from + row * width, width) : squares(from + row * width, width);
  };
  const int64_t threads = rows * width < (1 << 16) ? 1 : std::max<int64_t>(pool.num_threads(), 1);
  if (rows) run(part, parts, pool, std::min(threads, parts) - 1);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(thinkprm_sum, Sum,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<bool>("exponentials"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(thinkprm_attention, Attend,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(thinkprm_pieces, AttendPieces,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());
