// Sums over the numbers of a token, in one order.

#pragma once

#include "vectors.h"

namespace {

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

}  // namespace
