// All layers of a decoder in one call: the tokens of a decode step, or of pieces of prompts.
//
// Beside products and attention a layer has a dozen small things to do. Each of them as an operation of XLA's costs
// more than it does, and for bfloat16 a write into the cache is one that XLA converts the whole cache for. Here they
// are phases of one call, between products, and threads stay from the first layer to the last.

#pragma once

#include "attention.h"
#include "products.h"

namespace {

struct Numbers {  // float32 or bfloat16, or none
  const void* data = nullptr;
  bool half = false;

  explicit operator bool() const { return data != nullptr; }
  float operator[](int64_t i) const {
    return half ? widen(static_cast<const Half*>(data)[i]) : static_cast<const float*>(data)[i];
  }
};

struct Map {  // y = x W + bias
  const void* weights = nullptr;
  const float* scale = nullptr;  // of its columns, where it is int8
  Numbers bias;
};

struct Layer {
  Numbers attention_norm, query_norm, key_norm, mlp_norm;
  Map query, key, value, output, gate, up, down;
  void *keys, *values;  // [B, K, S, h]
};

struct Stack {
  std::vector<Layer> layers;
  Numbers norm;     // behind the last of them
  float epsilon;
  Weights kind;     // of the maps
  bool half;        // the cache is bfloat16
  const float *x, *cos, *sin;  // [N, D], the embedded tokens, and [N, h / 2]
  float* output;               // [N, D], or null where only the cache is wanted
  int64_t tokens, width, inner, heads, kv_heads, head_width, places;  // N, D, F, H, K, h, S
  std::vector<Piece> pieces;
};

// to (float32 or bfloat16) = x / rms(x) * scale.
INLINE void normalize(const float* x, const Numbers& scale, int64_t width, float epsilon, float* to) {
  const float factor = 1.0f / std::sqrt(squares(x, width) / float(width) + epsilon);
  int64_t d = 0;
  if (!scale.half)
    for (const float* by = static_cast<const float*>(scale.data); d + LANES <= width; d += LANES)
      store(to + d, load(x + d) * all(factor) * load(by + d));
  for (; d < width; ++d) to[d] = x[d] * factor * scale[d];
}

INLINE void add(float* to, const Numbers& numbers, int64_t begin, int64_t end) {
  if (numbers)
    for (int64_t d = begin; d < end; ++d) to[d] += numbers[d];
}

INLINE void add(float* to, const float* from, int64_t count) {
  int64_t d = 0;
  for (; d + LANES <= count; d += LANES) store(to + d, load(to + d) + load(from + d));
  for (; d < count; ++d) to[d] += from[d];
}

// gate = silu(gate) * up.
inline void swiglu(float* gate, const float* up, int64_t count) {
  for (int64_t d = 0; d < count; d += LANES) {
    float last[2][LANES] = {};
    const bool whole = d + LANES <= count;
    if (!whole) {
      std::memcpy(last[0], gate + d, (count - d) * sizeof(float));
      std::memcpy(last[1], up + d, (count - d) * sizeof(float));
    }
    const Vector x = load(whole ? gate + d : last[0]), other = load(whole ? up + d : last[1]);
    const Vector small = exponential(x > Vector{} ? -x : x);
    const Vector share = (x > Vector{} ? all(1.0f) : small) / (all(1.0f) + small);
    const Vector y = x * share * other;
    if (whole) {
      store(gate + d, y);
    } else {
      store(last[0], y);
      std::memcpy(gate + d, last[0], (count - d) * sizeof(float));
    }
  }
}

// Turns the pairs (i, i + h / 2) of a head, in place.
INLINE void rotate(float* x, const float* cos, const float* sin, int64_t half, float scale) {
  for (int64_t i = 0; i < half; ++i) {
    const float first = x[i], second = x[i + half];
    x[i] = (first * cos[i] - second * sin[i]) * scale;
    x[i + half] = (second * cos[i] + first * sin[i]) * scale;
  }
}

// The tokens of a call that are of pieces: all others are left out of everything.
struct Tokens {
  std::vector<int64_t> source, row, place;  // which of the N it is, its row of the cache, and where it goes
  std::vector<Piece> pieces;                // of these tokens

  explicit Tokens(const std::vector<Piece>& from) : pieces(from) {
    for (Piece& piece : pieces) {
      for (int64_t t = 0; t < piece.count; ++t)
        source.push_back(piece.first + t), row.push_back(piece.row), place.push_back(piece.start + t);
      piece.first = int64_t(source.size()) - piece.count;
    }
  }
  int64_t count() const { return source.size(); }
};

// What a call has beside its inputs and results, in the memory of its thread.
struct Room {
  float *x, *normed, *q, *k, *v, *attended, *gate, *up, *y;
  Half *normed_half, *attended_half, *hidden_half;
  float *normed_whole, *attended_whole, *hidden_whole;

  Room(const Stack& stack, int64_t tokens) {
    const int64_t queries = stack.heads * stack.head_width, keys = stack.kv_heads * stack.head_width;
    x = scratch<float, 19>(tokens * stack.width);
    normed = scratch<float, 20>(tokens * stack.width);
    q = scratch<float, 21>(tokens * queries), k = scratch<float, 22>(tokens * keys), v = scratch<float, 23>(tokens * keys);
    attended = scratch<float, 24>(tokens * queries);
    gate = scratch<float, 25>(tokens * stack.inner), up = scratch<float, 26>(tokens * stack.inner);
    y = scratch<float, 27>(tokens * stack.width);
    const bool halves = stack.kind == Weights::HALVES, bytes = stack.kind == Weights::BYTES;
    normed_half = halves ? scratch<Half, 28>(tokens * stack.width) : nullptr;
    attended_half = stack.half ? scratch<Half, 29>(tokens * queries) : nullptr;
    hidden_half = halves ? scratch<Half, 30>(tokens * stack.inner) : nullptr;
    normed_whole = bytes ? scratch<float, 31>(tokens * quantized_width(stack.width)) : nullptr;
    attended_whole = bytes ? scratch<float, 32>(tokens * quantized_width(queries)) : nullptr;
    hidden_whole = bytes ? scratch<float, 33>(tokens * quantized_width(stack.inner)) : nullptr;
  }

  Attention attention(const Stack& stack) const {
    Attention of{};
    of.q = q, of.output = attended, of.narrowed = attended_half, of.half = stack.half;
    of.heads = stack.heads, of.kv_heads = stack.kv_heads, of.columns = stack.places, of.width = stack.head_width;
    return of;
  }
};

class Run {
 public:
  Run(const Stack& stack, Team& team, int64_t threads)
      : stack_(stack), team_(team), threads_(threads), tokens_(stack.pieces), count_(tokens_.count()),
        queries_(stack.heads * stack.head_width), keys_(stack.kv_heads * stack.head_width), room_(stack, count_),
        attention_(tokens_.pieces, room_.attention(stack)) {}

  void run() {
    const int64_t width = stack_.width;
    if (stack_.output) std::fill(stack_.output, stack_.output + stack_.tokens * width, 0.0f);
    if (!count_) return;
    for (int64_t r = 0; r < count_; ++r) std::copy_n(stack_.x + tokens_.source[r] * width, width, room_.x + r * width);
    for (const Layer& layer : stack_.layers) {
      project(layer);
      if (!stack_.output && &layer == &stack_.layers.back()) return;
      attend(layer);
      feed_forward(layer);
    }
    each([&](int64_t r) {
      normalize(room_.x + r * width, stack_.norm, width, stack_.epsilon, stack_.output + tokens_.source[r] * width);
    });
  }

 private:
  // of_token(r) for every token, as evenly over the threads as they go.
  template <class OfToken>
  void each(const OfToken& of_token) {
    const int64_t parts = std::min(threads_, count_);
    team_.run(parts, [&](int64_t i) {
      for (int64_t r = count_ * i / parts; r < count_ * (i + 1) / parts; ++r) of_token(r);
    });
  }

  const void* norm(const Numbers& scale) {
    const int64_t width = stack_.width;
    each([&](int64_t r) {
      float* normed = room_.normed + r * width;
      normalize(room_.x + r * width, scale, width, stack_.epsilon, normed);
      if (stack_.kind == Weights::HALVES) narrow(normed, width, room_.normed_half + r * width);
      if (stack_.kind == Weights::BYTES) quantized(normed, width, room_.normed_whole + r * quantized_width(width));
    });
    return input(room_.normed, room_.normed_half, room_.normed_whole);
  }

  // Of an x in three kinds the one that products take.
  const void* input(const float* floats, const Half* halves, const float* whole) const {
    if (stack_.kind == Weights::HALVES) return halves;
    return stack_.kind == Weights::BYTES ? whole : floats;
  }

  Product product(const void* x, const Map& map, float* y, int64_t inputs, int64_t outputs) const {
    return {x, map.weights, y, count_, inputs, outputs, map.scale};
  }

  // Rows of floats for products with int8 weights.
  void quantize(const float* from, int64_t inputs, float* to) {
    if (stack_.kind == Weights::BYTES)
      each([&](int64_t r) { quantized(from + r * inputs, inputs, to + r * quantized_width(inputs)); });
  }

  // q, k and v, the latter two in the cache.
  void project(const Layer& layer) {
    const int64_t width = stack_.width;
    const void* x = norm(layer.attention_norm);
    const Plan maps = plan({product(x, layer.query, room_.q, width, queries_),
                            product(x, layer.key, room_.k, width, keys_),
                            product(x, layer.value, room_.v, width, keys_)},
                           stack_.kind, false, threads_);
    team_.run(maps.units.size(), [&](int64_t i) { maps.run_unit(i); });
    each([&](int64_t r) { place(layer, r); });
  }

  void attend(const Layer& layer) {
    attention_.run(layer.keys, layer.values, team_);
    quantize(room_.attended, queries_, room_.attended_whole);
    merge(layer.output, input(room_.attended, room_.attended_half, room_.attended_whole), queries_);
  }

  // q, k and v of token r, made into what attention reads; k and v go into the cache.
  void place(const Layer& layer, int64_t r) {
    const int64_t h = stack_.head_width, source = tokens_.source[r];
    float *q = room_.q + r * queries_, *k = room_.k + r * keys_, *v = room_.v + r * keys_;
    const float *cos = stack_.cos + source * h / 2, *sin = stack_.sin + source * h / 2;
    add(q, layer.query.bias, 0, queries_);
    add(k, layer.key.bias, 0, keys_);
    add(v, layer.value.bias, 0, keys_);
    const float scale = 1.0f / std::sqrt(float(h));
    for (int64_t head = 0; head < stack_.heads; ++head) {
      float* here = q + head * h;
      if (layer.query_norm) normalize(here, layer.query_norm, h, stack_.epsilon, here);
      rotate(here, cos, sin, h / 2, scale);
    }
    if (stack_.half)  // as products round their inputs
      narrow(q, queries_, room_.attended_half + r * queries_), widen(room_.attended_half + r * queries_, queries_, q);
    for (int64_t head = 0; head < stack_.kv_heads; ++head) {
      float* here = k + head * h;
      if (layer.key_norm) normalize(here, layer.key_norm, h, stack_.epsilon, here);
      rotate(here, cos, sin, h / 2, 1.0f);
      const int64_t at = ((tokens_.row[r] * stack_.kv_heads + head) * stack_.places + tokens_.place[r]) * h;
      write(here, h, layer.keys, at);
      write(v + head * h, h, layer.values, at);
    }
  }

  void write(const float* from, int64_t count, void* to, int64_t at) {
    if (stack_.half)
      narrow(from, count, static_cast<Half*>(to) + at);
    else
      std::memcpy(static_cast<float*>(to) + at, from, count * sizeof(float));
  }

  // The residual stream += x W + bias.
  void merge(const Map& map, const void* x, int64_t inputs) {
    const int64_t width = stack_.width;
    const Plan made = plan({product(x, map, room_.y, inputs, width)}, stack_.kind, false, threads_);
    team_.run(made.units.size(), [&](int64_t i) {
      made.run_unit(i);
      const Unit& unit = made.units[i];
      for (int64_t r = 0; r < count_; ++r) {
        add(room_.y + r * width, map.bias, unit.begin, unit.end);
        add(room_.x + r * width + unit.begin, room_.y + r * width + unit.begin, unit.end - unit.begin);
      }
    });
  }

  void feed_forward(const Layer& layer) {
    const int64_t inner = stack_.inner;
    const void* x = norm(layer.mlp_norm);
    const Plan gate = plan({product(x, layer.gate, room_.gate, stack_.width, inner)}, stack_.kind, false, threads_);
    Product up = gate.products[0];
    up.w = layer.up.weights, up.scale = layer.up.scale, up.y = room_.up;
    team_.run(gate.units.size(), [&](int64_t i) {
      const Unit& unit = gate.units[i];
      gate.run_unit(i);
      gate.function(up, unit.begin, unit.end);
      for (int64_t r = 0; r < count_; ++r) {
        float *to = room_.gate + r * inner, *other = room_.up + r * inner;
        add(to, layer.gate.bias, unit.begin, unit.end);
        add(other, layer.up.bias, unit.begin, unit.end);
        swiglu(to + unit.begin, other + unit.begin, unit.end - unit.begin);
        if (stack_.kind == Weights::HALVES)
          narrow(to + unit.begin, unit.end - unit.begin, room_.hidden_half + r * inner + unit.begin);
      }
    });
    quantize(room_.gate, inner, room_.hidden_whole);
    merge(layer.down, input(room_.gate, room_.hidden_half, room_.hidden_whole), inner);
  }

  const Stack& stack_;
  Team& team_;
  const int64_t threads_;
  const Tokens tokens_;
  const int64_t count_, queries_, keys_;
  const Room room_;
  PieceAttention attention_;
};

}  // namespace
