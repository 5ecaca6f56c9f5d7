// What all kernels stand on: vectors of this machine's width, memory of a thread, and work for several threads.
//
// It is compiled on the machine that runs it (-march=native), so the widths below are that machine's.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

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

typedef float Vector __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(BYTES), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(BYTES), aligned(2), may_alias));
typedef uint16_t Half;  // the bits of a bfloat16

#define INLINE inline __attribute__((always_inline))

INLINE Vector load(const void* from) { return *static_cast<const Vector*>(from); }
INLINE void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
INLINE Vector all(float value) { return Vector{} + value; }
INLINE Vector larger(Vector a, Vector b) { return a > b ? a : b; }

INLINE float widen(Half value) {
  const uint32_t bits = uint32_t{value} << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

// To the nearest, of two to the even one.
INLINE Half narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (value != value) return Half(bits >> 16 | 64);
  return Half((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

typedef Half HalfVector __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));

INLINE Vector load_wide(const Half* from) {
  return reinterpret_cast<Vector>(__builtin_convertvector(*reinterpret_cast<const HalfVector*>(from), Bits) << 16);
}

inline void widen(const Half* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, load_wide(from + i));
  for (; i < count; ++i) to[i] = widen(from[i]);
}

inline void narrow(const float* from, int64_t count, Half* to) {
  int64_t i = 0;
#if defined(__AVX512F__) && defined(__AVX512BW__)
  for (; i + 16 <= count; i += 16) {
    const __m512 value = _mm512_loadu_ps(from + i);
    const __m512i bits = _mm512_castps_si512(value), high = _mm512_srli_epi32(bits, 16);
    const __m512i even = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), even), 16);
    const __mmask16 none = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    rounded = _mm512_mask_mov_epi32(rounded, none, _mm512_or_si512(high, _mm512_set1_epi32(64)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtepi32_epi16(rounded));
  }
#endif
  for (; i < count; ++i) to[i] = narrow(from[i]);
}

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

// A call's threads: this one and whichever of XLA's come in time. The call is a row of phases; the units of a phase
// are taken by whoever is there, and the next one begins when all of them are done. A thread that comes late finds
// the phase that is on, or the end, and touches nothing else. So this thread never waits for one that has not begun.
class Team {
 public:
  // schedule: gives a function to a thread that is free. helpers: threads to ask for.
  template <class Schedule>
  Team(const Schedule& schedule, int64_t helpers) : shared_(std::make_shared<Shared>()) {
    alone_ = helpers < 1;
    for (int64_t i = 0; i < helpers; ++i) schedule([shared = shared_] { help(*shared); });
  }
  ~Team() { shared_->state.store(ENDED, std::memory_order_release); }
  Team(const Team&) = delete;

  // unit(i) for i < count, all of them done when this returns.
  template <class Unit>
  void run(int64_t count, const Unit& unit) {
    if (alone_ || count < 2) {
      for (int64_t i = 0; i < count; ++i) unit(i);
      return;
    }
    Shared& shared = *shared_;
    shared.unit = &unit, shared.count = count;
    shared.call = [](const void* what, int64_t i) { (*static_cast<const Unit*>(what))(i); };
    shared.done.store(0, std::memory_order_relaxed);
    shared.state.store(uint64_t(++phase_) << 32 | uint64_t(count), std::memory_order_release);
    while (take(shared)) {
    }
    for (int turns = 0; shared.done.load(std::memory_order_acquire) < count;) wait(turns);
  }

 private:
  static constexpr uint64_t ENDED = ~uint64_t{0}, LEFT = 0xffffffff;
  struct Shared {
    alignas(64) std::atomic<uint64_t> state{0};  // the phase, and how many of its units are left
    alignas(64) std::atomic<int64_t> done{0};
    alignas(64) int64_t count = 0;  // what follows is of the phase, and is read by those who have a unit of it
    const void* unit = nullptr;
    void (*call)(const void*, int64_t) = nullptr;
  };

  static bool take(Shared& shared) {
    uint64_t state = shared.state.load(std::memory_order_acquire);
    do {
      if (state == ENDED || !(state & LEFT)) return false;
    } while (!shared.state.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel));
    shared.call(shared.unit, shared.count - int64_t(state & LEFT));
    shared.done.fetch_add(1, std::memory_order_release);
    return true;
  }

  static void help(Shared& shared) {
    for (int turns = 0; shared.state.load(std::memory_order_acquire) != ENDED;) {
      if (take(shared))
        turns = 0;
      else
        wait(turns);
    }
  }

  static void wait(int& turns) {
#if defined(__x86_64__)
    _mm_pause();
#endif
    if (++turns > 2000) std::this_thread::yield();
  }

  std::shared_ptr<Shared> shared_;
  uint32_t phase_ = 0;
  bool alone_;
};

}  // namespace
