#include "engine/kernels/reference.h"

#include <algorithm>
#include <cmath>

namespace dimmer::reference {

double Activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return x > 0 || std::isnan(x) ? x : 0.0;
    case Activation::kGelu:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kAbs:
      return std::fabs(x);
  }
  return x;
}

std::vector<float> Linear(std::span<const float> a, size_t rows, std::span<const float> w, size_t n,
                          size_t k, std::span<const float> bias, Activation activation) {
  std::vector<float> out(rows * n);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < n; ++c) {
      double sum = bias.empty() ? 0.0 : bias[c];
      for (size_t i = 0; i < k; ++i) sum += double{a[r * k + i]} * w[c * k + i];
      out[r * n + c] = static_cast<float>(Activate(activation, sum));
    }
  }
  return out;
}

std::vector<float> ExpertFfn(std::span<const float> z, std::span<const float> w1,
                             std::span<const float> b1, std::span<const float> w2,
                             std::span<const float> b2, const std::vector<bool>& mask,
                             size_t expert_size, Activation activation, std::span<const float> up) {
  const size_t d = z.size();
  const size_t hidden = mask.size() * expert_size;
  std::vector<double> y(b2.begin(), b2.end());
  for (size_t neuron = 0; neuron < hidden; ++neuron) {
    if (!mask[neuron / expert_size]) continue;
    double sum = b1[neuron];
    for (size_t i = 0; i < d; ++i) sum += double{z[i]} * w1[neuron * d + i];
    double a = Activate(activation, sum);
    if (!up.empty()) {
      double factor = 0;
      for (size_t i = 0; i < d; ++i) factor += double{z[i]} * up[neuron * d + i];
      a *= factor;
    }
    for (size_t i = 0; i < d; ++i) y[i] += a * w2[i * hidden + neuron];
  }
  return {y.begin(), y.end()};
}

std::vector<float> Attention(std::span<const float> q, std::span<const float> k,
                             std::span<const float> v, size_t tokens, size_t head_dim,
                             double scale) {
  std::vector<float> out;
  for (size_t t = 0; t < tokens; ++t) {
    const std::vector<float> row = AttentionOfQuery(q.subspan(t * head_dim, head_dim), k, v, scale);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

std::vector<float> AttentionOfQuery(std::span<const float> q, std::span<const float> k,
                                    std::span<const float> v, double scale) {
  const size_t head_dim = q.size();
  std::vector<double> score(k.size() / head_dim);
  for (size_t s = 0; s < score.size(); ++s) {
    for (size_t c = 0; c < head_dim; ++c) score[s] += double{q[c]} * k[s * head_dim + c];
    score[s] *= scale;
  }
  const double max = *std::max_element(score.begin(), score.end());
  double sum = 0;
  for (double& s : score) sum += s = std::exp(s - max);
  std::vector<float> out(head_dim);
  for (size_t c = 0; c < head_dim; ++c) {
    double value = 0;
    for (size_t s = 0; s < score.size(); ++s) value += score[s] / sum * v[s * head_dim + c];
    out[c] = static_cast<float>(value);
  }
  return out;
}

std::vector<float> LayerNorm(std::span<const float> x, std::span<const float> gamma,
                             std::span<const float> beta, double epsilon) {
  const auto d = static_cast<double>(x.size());
  double mean = 0;
  for (float value : x) mean += value / d;
  double variance = 0;
  for (float value : x) variance += (value - mean) * (value - mean) / d;
  std::vector<float> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = static_cast<float>((x[i] - mean) / std::sqrt(variance + epsilon) * gamma[i] + beta[i]);
  }
  return out;
}

std::vector<float> RmsNorm(std::span<const float> x, std::span<const float> gamma, double epsilon) {
  double squares = 0;
  for (float value : x) squares += double{value} * value / static_cast<double>(x.size());
  std::vector<float> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = static_cast<float>(x[i] / std::sqrt(squares + epsilon) * gamma[i]);
  }
  return out;
}

}  // namespace dimmer::reference
