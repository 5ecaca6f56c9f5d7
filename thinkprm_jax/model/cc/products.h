// Products of activations with weights, y [B, N] = x [B, K] W, for the few rows of a decode step.
//
// A step reads every weight once, so its time is that of the memory, if nothing else is in the way. W stays as it
// is stored, [K, N] or [N, K], float32, bfloat16 or int8 with a scale for each column; nothing is packed beforehand
// or held twice. Beside int8 weights x is int8 too, with a scale for each group of inputs.
//
// One order of every sum: an element of y depends on its row of x and its column of W alone, never on how many
// rows there are, on the threads or on where a panel of columns begins. So a row's results are the same, bit for
// bit, whoever is computed beside it.
//
//   Blocks    Both kinds of W: a block of it is packed into the first-level cache, in the order in which it is
//             multiplied, and all rows of x with it, a tile of sums in registers. What is wanted soon is asked for
//             meanwhile, so that memory and arithmetic work at the same time.
//   Tiles     bfloat16 of either kind where the processor has AMX.

#pragma once

#include "blocks.h"
#include "tiles.h"

namespace {

struct Unit {  // columns of y
  int product;
  int64_t begin, end;
};

typedef void Function(const Product&, int64_t begin, int64_t end);

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

// How products of one x are computed, and in which units.
struct Plan {
  std::vector<Product> products;
  std::vector<Unit> units;
  Function* function;

  void run_unit(int64_t i) const { function(products[units[i].product], units[i].begin, units[i].end); }
};

enum class Weights { FLOATS, HALVES, BYTES };

inline int64_t weight_bytes(Weights kind) { return kind == Weights::FLOATS ? 4 : kind == Weights::HALVES ? 2 : 1; }

template <bool TRANSPOSED>
Function* columns_of(Weights kind) {
  return kind == Weights::FLOATS   ? columns<Floats, TRANSPOSED>
         : kind == Weights::HALVES ? columns<Halves, TRANSPOSED>
                                   : columns<Bytes, TRANSPOSED>;
}

// kind: of W. x is bfloat16 where W is, floats beside float32, and what `quantized` makes of floats beside int8.
// transposed: W is [N, K]. What x is made into stays in this thread's memory until its next plan. threads: that will
// take units.
inline Plan plan(std::vector<Product> products, Weights kind, bool transposed, int64_t threads) {
  Plan made{std::move(products)};
  const Product& first = made.products.front();
  const int64_t rows = first.rows, inputs = first.inputs;
  const void* x = nullptr;
  int64_t most, grain;
#if HAS_TILES
  bool tiled = kind == Weights::HALVES && tiles_allowed();
  if (tiled && transposed)
    for (const Product& product : made.products) tiled = tiled && product.outputs >= 2 * SIDE;
  if (tiled) {
    const Half* data = static_cast<const Half*>(first.x);
    x = transposed ? turned(data, rows, inputs) : padded(data, rows, inputs);
    made.function = transposed ? tiled_rows : tiled_columns;
    grain = 32;
    most = transposed ? 512 : rows <= 32 ? 512 : 128;
  }
#endif
  if (x == nullptr) {
    x = prepared(first.x, rows, inputs, kind == Weights::HALVES);
    made.function = transposed ? columns_of<true>(kind) : columns_of<false>(kind);
    grain = WIDE;
    most = rows <= 32 ? 1024 : 256;  // the sums of a panel stay in the second-level cache
  }
  for (Product& product : made.products) product.x = x;
  made.units = split(made.products, most, grain, threads);
  return made;
}

// Threads for work on so many bytes. One that has to be woken costs as much as reading some hundred kilobytes.
inline int64_t threads_for(int64_t bytes, int64_t most) {
  return bytes < (int64_t{1} << 19) ? 1 : std::max<int64_t>(most, 1);
}

}  // namespace
