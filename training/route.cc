#include "training/route.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/util/thread_pool.h"
#include "training/graph_ops.h"
#include "training/kernels.h"
#include "training/random.h"

namespace dimmer {
namespace {

using torch::Tensor;

constexpr int64_t kChunk = 1024;  // tokens whose norms are computed at a time

Tensor NormsOf(const FfnWeights& ffn, uint32_t experts, const Tensor& inputs) {
  std::vector<Tensor> chunks;
  for (int64_t begin = 0; begin < inputs.size(0); begin += kChunk) {
    const int64_t count = std::min(kChunk, inputs.size(0) - begin);
    chunks.push_back(ExpertNorms(ffn, experts, inputs.narrow(0, begin, count)));
  }
  return torch::cat(chunks);
}

Tensor Scores(const Tensor& inputs, const Tensor& w1, const Tensor& w2) {
  return at::linear(at::relu(at::linear(inputs, w1)), w2).abs();
}

Tensor InitialWeights(int64_t rows, int64_t columns, uint64_t key) {
  Tensor weights = torch::empty({rows, columns});
  RandomStream random(key);
  const double bound = 1 / std::sqrt(static_cast<double>(columns));
  for (int64_t i = 0; i < weights.numel(); ++i) {
    weights.data_ptr<float>()[i] = static_cast<float>((2 * random.Uniform() - 1) * bound);
  }
  return weights;
}

// A weight matrix and Adam's state for it.
struct AdamMatrix {
  explicit AdamMatrix(Tensor initial)
      : value(std::move(initial)),
        first(torch::zeros_like(value)),
        second(torch::zeros_like(value)) {}

  void Update(const Tensor& gradient, double rate, int64_t step) {
    const Tensor dense = gradient.contiguous();
    const float* gradients[] = {dense.data_ptr<float>()};
    const auto span = [](const Tensor& t) {
      return std::span(t.data_ptr<float>(), static_cast<size_t>(t.numel()));
    };
    AdamUpdate({.learning_rate = static_cast<float>(rate), .step = step}, gradients, span(value),
               span(first), span(second));
  }

  Tensor value, first, second;
};

std::vector<float> ToVector(const Tensor& tensor) {
  const Tensor dense = tensor.contiguous();
  return {dense.data_ptr<float>(), dense.data_ptr<float>() + dense.numel()};
}

// As many rows, in a seeded order, as fit; one at least, however long.
std::vector<uint32_t> TakeRows(std::span<const Example> examples, uint64_t max_tokens,
                               uint64_t seed) {
  std::vector<uint32_t> rows;
  uint64_t tokens = 0;
  for (uint32_t row :
       Permutation(static_cast<uint32_t>(examples.size()), RandomKey({seed, 0x20F3E}))) {
    if (!rows.empty() && tokens + examples[row].ids.size() > max_tokens) continue;
    tokens += examples[row].ids.size();
    rows.push_back(row);
  }
  return rows;
}

// Dynamic-k at one tau in every layer.
HiddenFilter FilterFor(const CollectOptions& options, uint64_t chunk) {
  if (options.gates.empty()) return {};
  constexpr double kLeast = 0.01;
  constexpr double kMost = 0.5;
  const double draw = RandomStream(RandomKey({options.seed, 0x7A0, chunk})).Uniform();
  const double tau = kLeast * std::pow(kMost / kLeast, draw);
  return [options, tau](int64_t layer, const Tensor& input, const Tensor& hidden) {
    const Router& router = options.gates[static_cast<size_t>(layer)];
    const auto experts = static_cast<int64_t>(options.experts);
    const auto width = static_cast<int64_t>(router.w2.size()) / experts;
    const Tensor w1 = torch::tensor(at::ArrayRef<float>(router.w1)).reshape({width, -1});
    const Tensor w2 = torch::tensor(at::ArrayRef<float>(router.w2)).reshape({experts, width});
    const Tensor scores = Scores(input, w1, w2);  // [tokens, E]
    const Tensor runs = scores.ge(std::get<0>(scores.max(1, true)) * tau);
    const Tensor slabs = hidden.reshape({hidden.size(0), experts, -1}) * runs.unsqueeze(2);
    return slabs.reshape(hidden.sizes());
  };
}

}  // namespace

FfnWeights FfnOf(const Trainee& model, int64_t layer) {
  const FfnLayout& names = model.layout().ffns[layer];
  const auto matrix = [&](const std::string& name) {
    const Tensor stored = model.At(name).detach();
    return names.orientation == Orientation::kInOut ? stored.t().contiguous() : stored;
  };
  FfnWeights ffn{.up = matrix(names.up),
                 .down = matrix(names.down),
                 .activation = model.sparsity().activation};
  if (!names.gate.empty()) ffn.gate = matrix(names.gate);
  if (!names.up_bias.empty()) ffn.up_bias = model.At(names.up_bias).detach();
  return ffn;
}

Tensor ExpertNorms(const FfnWeights& ffn, uint32_t experts, const Tensor& inputs) {
  const at::NoGradGuard frozen;
  const int64_t size = ffn.up.size(0) / experts;
  const int64_t tokens = inputs.size(0);
  const Tensor slabs = ffn.down.t().reshape({experts, size, -1});  // W2_n [e, d]
  const Tensor gram = at::bmm(slabs, slabs.transpose(1, 2));       // [E, e, e]
  Tensor hidden = at::linear(
      inputs, ffn.up, ffn.up_bias.defined() ? c10::optional<Tensor>(ffn.up_bias) : c10::nullopt);
  hidden = ffn.gate.defined() ? Activated(at::linear(inputs, ffn.gate), ffn.activation) * hidden
                              : Activated(hidden, ffn.activation);
  const Tensor act = hidden  // [E, tokens, e]
                         .reshape({tokens, experts, size})
                         .transpose(0, 1)
                         .contiguous();
  const Tensor squares = (at::bmm(act, gram) * act).sum(2);  // [E, tokens]
  return squares.clamp_min(0).sqrt().t().contiguous();
}

uint64_t TokensTaken(std::span<const Example> examples, const RouteOptions& options) {
  uint64_t tokens = 0;
  for (const uint32_t row : TakeRows(examples, options.max_tokens, options.seed)) {
    tokens += examples[row].ids.size();
  }
  return tokens;
}

std::vector<Tensor> CollectFfnInputs(const Trainee& model, std::span<const Example> examples,
                                     const CollectOptions& options, uint32_t workers) {
  const std::vector<uint32_t> rows = TakeRows(examples, options.max_tokens, options.seed);
  // What runs at a time, for the memory of its activations.
  constexpr size_t kChunkRows = 64;
  constexpr uint64_t kChunkTokens = 32768;
  std::vector<size_t> begins;  // the first row of each chunk, and the end
  uint64_t in_chunk = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t more = examples[rows[i]].ids.size();
    if (begins.empty() || i - begins.back() == kChunkRows || in_chunk + more > kChunkTokens) {
      begins.push_back(i);
      in_chunk = 0;
    }
    in_chunk += more;
  }
  const size_t chunks = begins.size();
  begins.push_back(rows.size());
  std::vector<std::vector<Tensor>> parts(chunks);
  ThreadPool pool(workers);
  pool.ParallelFor(chunks, [&](size_t chunk, size_t) {
    const size_t count = begins[chunk + 1] - begins[chunk];
    const PackedBatch batch = Pack(examples, std::span(rows).subspan(begins[chunk], count));
    parts[chunk] = model.FfnInputs(batch, FilterFor(options, chunk));
  });
  std::vector<Tensor> inputs;
  for (int64_t layer = 0; layer < model.layout().layers(); ++layer) {
    std::vector<Tensor> pieces;
    for (std::vector<Tensor>& part : parts) pieces.push_back(std::move(part[layer]));
    inputs.push_back(torch::cat(pieces));
  }
  return inputs;
}

Router TrainRouter(const FfnWeights& ffn, const Tensor& inputs, const Tensor& check_inputs,
                   int64_t layer, const RouteOptions& options, const Router* start,
                   const RouteProgress& on_progress) {
  const at::NoGradGuard manual;  // two layers: the gradient is written out below
  const Tensor norms = NormsOf(ffn, options.experts, inputs);
  // Targets of unit size make one learning rate fit all layers; w2 takes the scale back at the end.
  const double scale = std::max(1e-12, norms.square().mean().sqrt().item<double>());
  const Tensor targets = norms / scale;
  const double variance = std::max(1e-12, targets.var(0, false).mean().item<double>());
  const auto layer_key = static_cast<uint64_t>(layer);
  const auto initial = [&](uint64_t which, int64_t rows, int64_t columns) {
    if (start == nullptr) {
      return InitialWeights(rows, columns, RandomKey({options.seed, 0x2007E2, layer_key, which}));
    }
    const Tensor values = torch::tensor(at::ArrayRef<float>(which == 1 ? start->w1 : start->w2))
                              .reshape({rows, columns});
    return which == 1 ? values : values / scale;
  };
  AdamMatrix w1(initial(1, options.width, inputs.size(1)));
  AdamMatrix w2(initial(2, options.experts, options.width));
  const auto tokens = static_cast<uint64_t>(inputs.size(0));
  const uint64_t per_epoch = (tokens + options.batch_tokens - 1) / options.batch_tokens;
  const uint64_t steps = per_epoch * options.epochs;
  std::vector<uint32_t> order;
  double recent = 0;
  for (uint64_t step = 0; step < steps; ++step) {
    if (step % per_epoch == 0) {
      order = Permutation(static_cast<uint32_t>(tokens),
                          RandomKey({options.seed, 0x2007E3, layer_key, step / per_epoch}));
    }
    const uint64_t begin = step % per_epoch * options.batch_tokens;
    const uint64_t count = std::min<uint64_t>(options.batch_tokens, tokens - begin);
    const std::vector<int64_t> picked(order.begin() + static_cast<ptrdiff_t>(begin),
                                      order.begin() + static_cast<ptrdiff_t>(begin + count));
    const Tensor index = torch::tensor(at::ArrayRef<int64_t>(picked), torch::kInt64);
    const Tensor z = inputs.index_select(0, index);
    const Tensor hidden = at::relu(at::linear(z, w1.value));  // [b, w]
    const Tensor raw = at::linear(hidden, w2.value);          // [b, E]
    const Tensor error = raw.abs() - targets.index_select(0, index);
    const Tensor draw = error * raw.sign() * (2.0 / static_cast<double>(error.numel()));
    const Tensor dhidden = at::mm(draw, w2.value) * hidden.gt(0);
    const double rate =
        options.learning_rate * 0.5 *
        (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(steps)));
    const auto number = static_cast<int64_t>(step + 1);
    w2.Update(at::mm(draw.t(), hidden), rate, number);
    w1.Update(at::mm(dhidden.t(), z), rate, number);
    if (on_progress && (step % 500 == 499 || step + 1 == steps)) {
      recent = error.square().mean().item<double>() / variance;
      on_progress(step + 1, steps, recent);
    }
  }
  Router router;
  const Tensor expected = NormsOf(ffn, options.experts, check_inputs) / scale;
  const double mse =
      (Scores(check_inputs, w1.value, w2.value) - expected).square().mean().item<double>();
  router.explained = 1 - mse / std::max(1e-12, expected.var(0, false).mean().item<double>());
  router.w1 = ToVector(w1.value);
  router.w2 = ToVector(w2.value * scale);
  return router;
}

}  // namespace dimmer
