#include "client_examples/demo/demo_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace dimmer::demo {
namespace {

// "36 16 10  9 10 25 of 96"
std::string Experts(const v1::Usage& usage) {
  std::string row;
  for (const v1::LayerUsage& layer : usage.layers()) {
    row += fmt::format("{:>3.0f} ", layer.experts_run());
  }
  if (row.empty()) return "all: not converted";
  return row + fmt::format("of {}", usage.layers(0).experts());
}

std::string Flops(uint64_t flops) {
  const double count = double(flops);
  if (count >= 1e9) return fmt::format("{:.2f} G", count / 1e9);
  if (count >= 1e6) return fmt::format("{:.1f} M", count / 1e6);
  return fmt::format("{:.1f} k", count / 1e3);
}

std::string Row(const std::string& setting, const std::string& answer, const std::string& score,
                const std::string& tau, const std::string& flops, const std::string& share,
                const std::string& experts, const std::string& time) {
  return fmt::format("  {:<18} {:<9} {:>6}  {:>5}  {:>17}  {:>5}   {:<32} {:>8}\n", setting, answer,
                     score, tau, flops, share, experts, time);
}

std::string AnswerRow(const Answer& answer) {
  const v1::Usage& usage = answer.result.usage();
  const v1::Label& best = answer.result.labels(0);
  const double dense = double(std::max<uint64_t>(usage.dense_flops(), 1));
  return Row(answer.setting, best.name(), fmt::format("{:.1f}%", 100 * best.score()),
             fmt::format("{:.3f}", usage.tau()),
             fmt::format("{} / {}", Flops(usage.flops()), Flops(usage.dense_flops())),
             fmt::format("{:.0f}%", 100 * double(usage.flops()) / dense), Experts(usage),
             fmt::format("{:.2f} ms", double(usage.compute_us()) / 1000));
}

// Each setting's FLOPs and time over all texts.
std::string Summary(const std::vector<Answer>& answers, const std::vector<Setting>& settings) {
  std::string text = "All texts together:\n";
  const size_t texts = settings.empty() ? 0 : answers.size() / settings.size();
  for (size_t s = 0; s < settings.size(); ++s) {
    double flops = 0, dense = 0, micros = 0;
    for (size_t t = 0; t < texts; ++t) {
      const v1::Usage& usage = answers[t * settings.size() + s].result.usage();
      flops += double(usage.flops());
      dense += double(usage.dense_flops());
      micros += double(usage.compute_us());
    }
    text += fmt::format("  {:<18} {:>5.1f}% of the dense FLOPs, {:>6.2f} ms in the model\n",
                        settings[s].name, dense > 0 ? 100 * flops / dense : 100, micros / 1000);
  }
  return text;
}

}  // namespace

std::string Table(const std::vector<Answer>& answers, const std::vector<Setting>& settings,
                  bool color) {
  const char* bold = color ? "\033[1m" : "";
  const char* dim = color ? "\033[2m" : "";
  const char* plain = color ? "\033[0m" : "";
  std::string text = dim +
                     Row("budget", "answer", "score", "tau", "FLOPs / dense", "share",
                         "experts per token, by layer", "time") +
                     plain;
  std::string last;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (i % std::max<size_t>(settings.size(), 1) == 0) {
      text += fmt::format("\n{}\"{}\"{}\n", bold, answers[i].text, plain);
    }
    text += AnswerRow(answers[i]);
  }
  return text + "\n" + Summary(answers, settings) +
         fmt::format("{}time: in the model, best of 3 calls{}\n", dim, plain);
}

void AddRows(const std::string& model, const std::vector<Answer>& answers,
             nlohmann::ordered_json& rows) {
  for (const Answer& answer : answers) {
    const v1::Usage& usage = answer.result.usage();
    nlohmann::ordered_json experts = nlohmann::ordered_json::array();
    for (const v1::LayerUsage& layer : usage.layers()) experts.push_back(layer.experts_run());
    rows.push_back({{"model", model},
                    {"text", answer.text},
                    {"budget", answer.setting},
                    {"label", answer.result.labels(0).name()},
                    {"score", answer.result.labels(0).score()},
                    {"tau", usage.tau()},
                    {"flops", usage.flops()},
                    {"dense_flops", usage.dense_flops()},
                    {"experts_run", experts},
                    {"budget_clamped", usage.budget_clamped()},
                    {"queue_us", usage.queue_us()},
                    {"compute_us", usage.compute_us()}});
  }
}

}  // namespace dimmer::demo
