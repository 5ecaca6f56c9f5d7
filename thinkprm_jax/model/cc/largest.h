// The largest logits of a row and what all of them weigh: what top-p and top-k look at.

#pragma once

#include "sums.h"

namespace {

struct Candidate {
  int32_t order;  // of its logit, as whole numbers are compared: what is no number stands at an end
  int32_t id;
};

INLINE int32_t order_of(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

INLINE Ints order_of(Vector values) {
  const Ints bits = reinterpret_cast<Ints>(values);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

// The `count` largest of x, falling, the first of equals first. They lie in the blocks with the largest maxima: what
// is below as many maxima is not looked at twice.
inline void largest(const float* x, int64_t width, int64_t count, float* values, int32_t* ids) {
  constexpr int64_t SIZE = 128;
  const int64_t blocks = (width + SIZE - 1) / SIZE;
  int32_t *maxima = scratch<int32_t, 34>(blocks), *sorted = scratch<int32_t, 35>(blocks);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * SIZE, end = std::min(begin + SIZE, width);
    Ints most = Ints{} + INT32_MIN;
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) {
      const Ints here = order_of(load(x + i));
      most = here > most ? here : most;
    }
    int32_t top = INT32_MIN;
    for (int lane = 0; lane < LANES; ++lane) top = std::max<int32_t>(top, most[lane]);
    for (; i < end; ++i) top = std::max(top, order_of(x[i]));
    maxima[block] = sorted[block] = top;
  }
  int32_t floor = INT32_MIN;
  if (blocks > count) {
    std::nth_element(sorted, sorted + count - 1, sorted + blocks, std::greater<int32_t>());
    floor = sorted[count - 1];
  }
  Candidate* found = scratch<Candidate, 36>(width);
  int64_t number = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    if (maxima[block] < floor) continue;
    for (int64_t i = block * SIZE; i < std::min(block * SIZE + SIZE, width); ++i) {
      found[number] = {order_of(x[i]), int32_t(i)};
      number += found[number].order >= floor;
    }
  }
  std::partial_sort(found, found + count, found + number, [](const Candidate& a, const Candidate& b) {
    return a.order != b.order ? a.order > b.order : a.id < b.id;
  });
  for (int64_t i = 0; i < count; ++i) values[i] = x[found[i].id], ids[i] = found[i].id;
}

// sum exp((x - most) / divisor); most: the largest of x. Some thousands have a sum of their own first.
inline float weight_of_all(const float* x, int64_t width, float most, float divisor) {
  constexpr int64_t LONG = 2048;
  Vector sums[VECTORS] = {};
  float last[SIXTEEN];
  const int64_t whole = width / SIXTEEN * SIXTEEN;
  std::fill(last, last + SIXTEEN, -__builtin_inff());
  std::memcpy(last, x + whole, (width - whole) * sizeof(float));
  const Vector by = all(1.0f / divisor), from = all(most);
  for (int64_t begin = 0; begin < width; begin += LONG) {
    Vector here[VECTORS] = {};
    for (int64_t d = begin; d < std::min(begin + LONG, width); d += SIXTEEN)
      for (int v = 0; v < VECTORS; ++v)
        here[v] = here[v] + exponential((load((d < whole ? x + d : last) + v * LANES) - from) * by);
    for (int v = 0; v < VECTORS; ++v) sums[v] = sums[v] + here[v];
  }
  return total(sums);
}

}  // namespace
