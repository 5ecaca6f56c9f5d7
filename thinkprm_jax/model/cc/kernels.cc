// What XLA calls: our kernels of a decode step, and of products.

#include "largest.h"
#include "layers.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// A team of this thread and some of XLA's.
struct Threads {
  Threads(ffi::ThreadPool& pool, int64_t count)
      : team([&pool](auto&& work) { pool.Schedule(std::forward<decltype(work)>(work)); }, count - 1) {}
  Team team;
};

bool is_half(const ffi::AnyBuffer& buffer) { return buffer.element_type() == ffi::DataType::BF16; }
bool is_number(const ffi::AnyBuffer& buffer) {
  return is_half(buffer) || buffer.element_type() == ffi::DataType::F32;
}

bool is_whole(const ffi::AnyBuffer& buffer) { return buffer.element_type() == ffi::DataType::S8; }
Weights kind_of(const ffi::AnyBuffer& weights) {
  return is_whole(weights) ? Weights::BYTES : is_half(weights) ? Weights::HALVES : Weights::FLOATS;
}

bool same(ffi::Span<const int64_t> a, ffi::Span<const int64_t> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// x [B, K], weights, and where these are int8 the scales of their columns: y of each.
ffi::Error Multiply(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, bool transposed) {
  auto x = args.get<ffi::AnyBuffer>(0), first = args.get<ffi::AnyBuffer>(1);
  if (!x.has_value() || !first.has_value() || x->dimensions().size() != 2)
    return ffi::Error::InvalidArgument("products: x [B, K] and weights");
  const Weights kind = kind_of(*first);
  const bool bytes = kind == Weights::BYTES;
  if (args.size() != rets.size() * (bytes ? 2 : 1) + 1)
    return ffi::Error::InvalidArgument("products: as many weights as results are wanted, and scales of int8");
  if (!is_number(*x) || is_half(*x) != (kind == Weights::HALVES))
    return ffi::Error::InvalidArgument("products: x must be float32, and bfloat16 where weights are");
  std::vector<Product> products;
  int64_t read = 0;
  const int64_t count = x->dimensions()[0], inputs = x->dimensions()[1];
  for (size_t i = 0; i < rets.size(); ++i) {
    auto w = args.get<ffi::AnyBuffer>(i + 1);
    auto y = rets.get<ffi::AnyBuffer>(i);
    if (!w.has_value() || !y.has_value() || w->dimensions().size() != 2 || (*y)->dimensions().size() != 2)
      return ffi::Error::InvalidArgument("products: weights and results have two dimensions");
    const int64_t outputs = w->dimensions()[transposed ? 0 : 1];
    if (w->element_type() != first->element_type() || (*y)->element_type() != ffi::DataType::F32 ||
        w->dimensions()[transposed ? 1 : 0] != inputs || (*y)->dimensions()[0] != count ||
        (*y)->dimensions()[1] != outputs)
      return ffi::Error::InvalidArgument("products: shapes or dtypes do not fit");
    const float* scale = nullptr;
    if (bytes) {
      auto found = args.get<ffi::AnyBuffer>(rets.size() + i + 1);
      if (!found.has_value() || found->element_type() != ffi::DataType::F32 || found->element_count() != size_t(outputs))
        return ffi::Error::InvalidArgument("products: scales do not fit");
      scale = static_cast<const float*>(found->untyped_data());
    }
    if (count * outputs == 0) continue;
    products.push_back({x->untyped_data(), w->untyped_data(), static_cast<float*>((*y)->untyped_data()), count,
                        inputs, outputs, scale});
    read += inputs * outputs * weight_bytes(kind);
  }
  if (products.empty()) return ffi::Error::Success();
  const int64_t threads = threads_for(read * std::max<int64_t>(1, count / 8), pool.num_threads());
  if (bytes) {
    const int64_t width = quantized_width(inputs);
    const float* from = static_cast<const float*>(x->untyped_data());
    float* whole = scratch<float, 31>(count * width);
    for (int64_t row = 0; row < count; ++row) quantized(from + row * inputs, inputs, whole + row * width);
    for (Product& product : products) product.x = whole;
  }
  const Plan made = plan(std::move(products), kind, transposed, threads);
  const int64_t units = made.units.size();
  Threads several(pool, std::min(threads, units));
  several.team.run(units, [&](int64_t i) { made.run_unit(i); });
  return ffi::Error::Success();
}

ffi::Error Attend(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> q, ffi::AnyBuffer keys, ffi::AnyBuffer values,
                  ffi::Buffer<ffi::S32> lengths, ffi::Buffer<ffi::PRED> written, ffi::Buffer<ffi::S32> column,
                  ffi::ResultBuffer<ffi::F32> output) {
  const auto of_q = q.dimensions(), of_keys = keys.dimensions(), of_written = written.dimensions();
  if (of_q.size() != 4 || of_keys.size() != 4 || of_written.size() != 2)
    return ffi::Error::InvalidArgument("attention: q [B, W, H, h], keys and values [B, K, S + C, h], written [B, C]");
  const Attention call{q.typed_data(), keys.untyped_data(), values.untyped_data(), lengths.typed_data(),
                       written.typed_data(), column.typed_data()[0], output->typed_data(), of_q[0], of_q[1], of_q[2],
                       of_keys[1], of_keys[2] - of_written[1], of_written[1], of_q[3], is_half(keys)};
  if (!is_number(keys) || values.element_type() != keys.element_type() || call.width % SIXTEEN ||
      call.heads % call.kv_heads || call.length < 0 || call.tokens > call.columns || of_keys[0] != call.rows ||
      of_written[0] != call.rows || of_keys[3] != call.width)
    return ffi::Error::InvalidArgument("attention: shapes or dtypes do not fit");
  int64_t read = 0;
  for (int64_t row = 0; row < call.rows; ++row) read += call.lengths[row] + call.column + call.tokens;
  const int64_t cost = read * call.kv_heads * call.width * 8 * std::max<int64_t>(1, call.tokens / 2);
  const int64_t threads = threads_for(cost, pool.num_threads());
  Threads several(pool, threads);
  attend(call, several.team, threads);
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
  const int64_t threads = std::min(threads_for(rows * width * 8, pool.num_threads()), parts);
  Threads several(pool, threads);
  several.team.run(parts, [=](int64_t i) {
    for (int64_t row = i * grain; row < std::min(rows, (i + 1) * grain); ++row)
      to[row] = exponentials ? log_sum_exp(from + row * width, width) : squares(from + row * width, width);
  });
  return ffi::Error::Success();
}

// logits [B, V] and divisors [B] -> the largest logits of every row, falling, their ids [B, N], and what all logits weigh
// beside the largest, [B].
ffi::Error Largest(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> logits, ffi::Buffer<ffi::F32> divisors,
                   ffi::ResultBuffer<ffi::F32> values, ffi::ResultBuffer<ffi::S32> ids, ffi::ResultBuffer<ffi::F32> weights) {
  const auto shape = logits.dimensions(), of_values = values->dimensions();
  if (shape.size() != 2 || of_values.size() != 2 || !same(of_values, ids->dimensions()) || of_values[0] != shape[0] ||
      of_values[1] < 1 || of_values[1] > shape[1] || divisors.element_count() != size_t(shape[0]) ||
      weights->element_count() != size_t(shape[0]))
    return ffi::Error::InvalidArgument("largest: logits [B, V], divisors [B], at most V values a row");
  const int64_t rows = shape[0], width = shape[1], count = of_values[1];
  const float *x = logits.typed_data(), *by = divisors.typed_data();
  float *found = values->typed_data(), *weight = weights->typed_data();
  int32_t* id = ids->typed_data();
  const int64_t threads = std::min(threads_for(rows * width * 8, pool.num_threads()), rows);
  Threads several(pool, threads);
  several.team.run(rows, [=](int64_t row) {
    largest(x + row * width, width, count, found + row * count, id + row * count);
    weight[row] = weight_of_all(x + row * width, width, found[row * count], by[row]);
  });
  return ffi::Error::Success();
}

// Tokens of pieces (read_pieces), one piece behind the other, go to their places in the cache, and attend to what stands
// before them and to themselves. Of padding nothing is written and the output is zero.
ffi::Error AttendPieces(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> q, ffi::AnyBuffer new_keys, ffi::AnyBuffer new_values,
                        ffi::AnyBuffer, ffi::AnyBuffer, ffi::Buffer<ffi::S32> pieces, ffi::ResultBuffer<ffi::F32> output,
                        ffi::Result<ffi::AnyBuffer> keys, ffi::Result<ffi::AnyBuffer> values) {
  const auto of_q = q.dimensions(), of_new = new_keys.dimensions(), of_keys = keys->dimensions();
  const auto type = keys->element_type();
  std::vector<Piece> found;
  if (of_q.size() != 3 || of_new.size() != 3 || of_keys.size() != 4 || pieces.dimensions().size() != 2 ||
      pieces.dimensions()[1] != 3 || of_new[0] != of_q[0] || of_new[1] != of_keys[1] || of_new[2] != of_q[2] ||
      of_keys[3] != of_q[2] || of_q[2] % SIXTEEN || of_q[1] % of_keys[1] || new_keys.element_type() != type ||
      new_values.element_type() != type || values->element_type() != type || !is_number(*keys))
    return ffi::Error::InvalidArgument("attention of pieces: shapes or dtypes do not fit");
  const int64_t heads = of_q[1], kv_heads = of_keys[1], places = of_keys[2], width = of_q[2];
  if (!read_pieces(pieces.typed_data(), pieces.dimensions()[0], of_keys[0], places, of_q[0], found))
    return ffi::Error::InvalidArgument("attention of pieces: a piece has no place");
  std::fill(output->typed_data(), output->typed_data() + output->element_count(), 0.0f);
  const int64_t bytes = width * (is_half(*keys) ? 2 : 4);
  for (const Piece& piece : found)
    for (int64_t t = 0; t < piece.count; ++t)
      for (int64_t head = 0; head < kv_heads; ++head) {
        const int64_t from = ((piece.first + t) * kv_heads + head) * bytes;
        const int64_t to = ((piece.row * kv_heads + head) * places + piece.start + t) * bytes;
        std::memcpy(static_cast<char*>(keys->untyped_data()) + to, static_cast<const char*>(new_keys.untyped_data()) + from, bytes);
        std::memcpy(static_cast<char*>(values->untyped_data()) + to, static_cast<const char*>(new_values.untyped_data()) + from, bytes);
      }
  Attention shape{};
  shape.q = q.typed_data(), shape.output = output->typed_data(), shape.half = is_half(*keys);
  shape.heads = heads, shape.kv_heads = kv_heads, shape.columns = places, shape.width = width;
  PieceAttention attention(found, shape);
  Threads several(pool, std::max<int64_t>(pool.num_threads(), 1));
  attention.run(keys->untyped_data(), values->untyped_data(), several.team);
  return ffi::Error::Success();
}

// The arguments of a call, one after the other; what does not fit is remembered.
class Reader {
 public:
  Reader(const ffi::RemainingArgs& args) : args_(args) {}

  // A buffer of these dimensions.
  ffi::AnyBuffer take(std::initializer_list<int64_t> shape) {
    auto buffer = args_.get<ffi::AnyBuffer>(next_++);
    fits = fits && buffer.has_value() && std::equal(buffer->dimensions().begin(), buffer->dimensions().end(), shape.begin(), shape.end());
    return buffer.has_value() ? *buffer : *args_.get<ffi::AnyBuffer>(0);
  }
  Numbers numbers(int64_t count) {
    const ffi::AnyBuffer buffer = take({count});
    fits = fits && is_number(buffer);
    return {buffer.untyped_data(), is_half(buffer)};
  }
  // Weights of this kind, the scales of int8 ones, and the bias.
  Map map(int64_t inputs, int64_t outputs, Weights kind, bool bias) {
    const ffi::AnyBuffer weights = take({inputs, outputs});
    fits = fits && (is_number(weights) || is_whole(weights)) && kind_of(weights) == kind;
    Map map{weights.untyped_data()};
    if (kind == Weights::BYTES) {
      const ffi::AnyBuffer scale = take({outputs});
      fits = fits && scale.element_type() == ffi::DataType::F32;
      map.scale = static_cast<const float*>(scale.untyped_data());
    }
    if (bias) map.bias = numbers(outputs);
    return map;
  }
  bool at_end() const { return next_ == args_.size(); }

  bool fits = true;

 private:
  const ffi::RemainingArgs& args_;
  size_t next_ = 0;
};

// x [N, D], cos and sin [N, h / 2], pieces [M, 3] (read_pieces) and the layers' caches and weights
// (`model/decode_step.py` has their order) -> x behind the last norm, zero where it is padding, and the caches with the
// tokens. states: x is wanted.
ffi::Error RunLayers(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> cos, ffi::Buffer<ffi::F32> sin,
                     ffi::Buffer<ffi::S32> pieces, ffi::RemainingArgs args, ffi::ResultBuffer<ffi::F32> output,
                     ffi::RemainingRets caches, float epsilon, int64_t heads, int64_t inner, bool qkv_bias,
                     bool output_bias, bool mlp_bias, bool head_norms, bool whole, bool states) {
  const auto of_x = x.dimensions(), of_pieces = pieces.dimensions();
  auto cache = caches.get<ffi::AnyBuffer>(0);
  if (of_x.size() != 2 || of_pieces.size() != 2 || of_pieces[1] != 3 || !cache.has_value() || caches.size() % 2 ||
      (*cache)->dimensions().size() != 4 || !same(output->dimensions(), of_x))
    return ffi::Error::InvalidArgument("layers: x [N, D], pieces [M, 3], caches [B, K, S, h]");
  const auto of_cache = (*cache)->dimensions();
  const int64_t width = of_x[1], h = of_cache[3], kv_heads = of_cache[1];
  const bool half = is_half(**cache);
  const Weights kind = whole ? Weights::BYTES : half ? Weights::HALVES : Weights::FLOATS;
  Stack stack{{}, {}, epsilon, kind, half, x.typed_data(), cos.typed_data(), sin.typed_data(),
              states ? output->typed_data() : nullptr, of_x[0], width, inner, heads, kv_heads, h, of_cache[2]};
  bool fits = is_number(**cache) && h % SIXTEEN == 0 && kv_heads > 0 && heads % kv_heads == 0 &&
              cos.element_count() == size_t(of_x[0] * h / 2) && sin.element_count() == cos.element_count();
  Reader reader(args);
  int64_t bytes = 0;
  stack.norm = reader.numbers(width);
  for (size_t i = 0; i < caches.size(); i += 2) {
    Layer layer;
    auto keys = caches.get<ffi::AnyBuffer>(i), values = caches.get<ffi::AnyBuffer>(i + 1);
    fits = fits && keys.has_value() && values.has_value() && same((*keys)->dimensions(), of_cache) &&
           same((*values)->dimensions(), of_cache) && (*keys)->element_type() == (*cache)->element_type() &&
           (*values)->element_type() == (*cache)->element_type();
    if (!fits) break;
    layer.keys = (*keys)->untyped_data(), layer.values = (*values)->untyped_data();
    for (int both = 0; both < 2; ++both) reader.take({of_cache[0], kv_heads, of_cache[2], h});  // the same memory
    layer.attention_norm = reader.numbers(width);
    layer.query = reader.map(width, heads * h, kind, qkv_bias);
    layer.key = reader.map(width, kv_heads * h, kind, qkv_bias);
    layer.value = reader.map(width, kv_heads * h, kind, qkv_bias);
    if (head_norms) layer.query_norm = reader.numbers(h), layer.key_norm = reader.numbers(h);
    layer.output = reader.map(heads * h, width, kind, output_bias);
    layer.mlp_norm = reader.numbers(width);
    layer.gate = reader.map(width, inner, kind, mlp_bias);
    layer.up = reader.map(width, inner, kind, mlp_bias);
    layer.down = reader.map(inner, width, kind, mlp_bias);
    stack.layers.push_back(layer);
    bytes += width * (2 * (heads + kv_heads) * h + 3 * inner) * weight_bytes(kind);
  }
  if (!fits || !reader.fits || !reader.at_end())
    return ffi::Error::InvalidArgument("layers: shapes or dtypes do not fit");
  if (!read_pieces(pieces.typed_data(), of_pieces[0], of_cache[0], of_cache[2], of_x[0], stack.pieces))
    return ffi::Error::InvalidArgument("layers: a piece has no place");
  const int64_t threads = threads_for(bytes * std::max<int64_t>(1, of_x[0] / 8), pool.num_threads());
  Threads several(pool, threads);
  Run(stack, several.team, threads).run();
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(thinkprm_products, Multiply,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(thinkprm_sum, Sum,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<bool>("exponentials"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(thinkprm_largest, Largest,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

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

XLA_FFI_DEFINE_HANDLER_SYMBOL(thinkprm_layers, RunLayers,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .RemainingArgs()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .RemainingRets()
                                  .Attr<float>("epsilon")
                                  .Attr<int64_t>("heads")
                                  .Attr<int64_t>("inner")
                                  .Attr<bool>("qkv_bias")
                                  .Attr<bool>("output_bias")
                                  .Attr<bool>("mlp_bias")
                                  .Attr<bool>("head_norms")
                                  .Attr<bool>("whole")
                                  .Attr<bool>("states"));

extern "C" bool thinkprm_has_tiles() {
#if HAS_TILES
  return tiles_allowed();
#else
  return false;
#endif
}
