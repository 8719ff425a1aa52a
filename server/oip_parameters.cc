#include "server/oip_parameters.h"

#include <absl/strings/numbers.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <string_view>
#include <vector>

#include "engine/util/status.h"

namespace dimmer {
namespace {

using inference::InferParameter;

constexpr std::array<std::string_view, 2> kIgnored = {"priority", "binary_data_output"};
constexpr std::array<std::string_view, 2> kIgnoredPrefixes = {"sequence_", "triton_"};

std::string Found(const InferParameter& value) {
  switch (value.parameter_choice_case()) {
    case InferParameter::kBoolParam:
      return value.bool_param() ? "true" : "false";
    case InferParameter::kInt64Param:
      return std::to_string(value.int64_param());
    case InferParameter::kUint64Param:
      return std::to_string(value.uint64_param());
    case InferParameter::kDoubleParam:
      return fmt::format("{}", value.double_param());
    case InferParameter::kStringParam:
      return fmt::format("\"{}\"", value.string_param());
    case InferParameter::PARAMETER_CHOICE_NOT_SET:
      break;
  }
  return "no value";
}

absl::Status Wrong(const std::string& name, const InferParameter& value,
                   std::string_view expected) {
  return absl::InvalidArgumentError(
      fmt::format("parameters.{}: found {}, expected {}", name, Found(value), expected));
}

absl::StatusOr<double> ToDouble(const std::string& name, const InferParameter& value) {
  double number = 0;
  switch (value.parameter_choice_case()) {
    case InferParameter::kDoubleParam:
      return value.double_param();
    case InferParameter::kInt64Param:
      return double(value.int64_param());
    case InferParameter::kUint64Param:
      return double(value.uint64_param());
    case InferParameter::kStringParam:
      if (absl::SimpleAtod(value.string_param(), &number)) return number;
      break;
    default:
      break;
  }
  return Wrong(name, value, "a number");
}

absl::StatusOr<uint64_t> ToCount(const std::string& name, const InferParameter& value) {
  uint64_t number = 0;
  const double real = value.double_param();
  switch (value.parameter_choice_case()) {
    case InferParameter::kInt64Param:
      if (value.int64_param() >= 0) return static_cast<uint64_t>(value.int64_param());
      break;
    case InferParameter::kUint64Param:
      return value.uint64_param();
    case InferParameter::kStringParam:
      if (absl::SimpleAtoi(value.string_param(), &number)) return number;
      break;
    case InferParameter::kDoubleParam:
      if (real >= 0 && real < 0x1p64 && std::trunc(real) == real) {
        return static_cast<uint64_t>(real);
      }
      break;
    default:
      break;
  }
  return Wrong(name, value, "a whole number, not negative");
}

absl::StatusOr<bool> ToBool(const std::string& name, const InferParameter& value) {
  bool flag = false;
  switch (value.parameter_choice_case()) {
    case InferParameter::kBoolParam:
      return value.bool_param();
    case InferParameter::kInt64Param:
      if (value.int64_param() == 0 || value.int64_param() == 1) return value.int64_param() == 1;
      break;
    case InferParameter::kStringParam:
      if (absl::SimpleAtob(value.string_param(), &flag)) return flag;
      break;
    default:
      break;
  }
  return Wrong(name, value, "true or false");
}

std::optional<Budget::Kind> BudgetKind(std::string_view name) {
  if (name == "tau") return Budget::Kind::kTau;
  if (name == "flop_fraction") return Budget::Kind::kFlopFraction;
  if (name == "max_flops") return Budget::Kind::kMaxFlops;
  if (name == "min_quality") return Budget::Kind::kMinQuality;
  return std::nullopt;
}

absl::Status DecodeBudget(const std::string& name, Budget::Kind kind, const InferParameter& value,
                          Budget& budget) {
  budget.kind = kind;
  if (kind == Budget::Kind::kMaxFlops) {
    DIMMER_ASSIGN_OR_RETURN(budget.max_flops, ToCount(name, value));
  } else {
    DIMMER_ASSIGN_OR_RETURN(budget.value, ToDouble(name, value));
  }
  return Annotate(ValidateBudget(budget), "parameters." + name);
}

absl::Status DecodeUint32(const std::string& name, const InferParameter& value, uint32_t& number) {
  DIMMER_ASSIGN_OR_RETURN(const uint64_t count, ToCount(name, value));
  if (count > std::numeric_limits<uint32_t>::max()) {
    return Wrong(name, value, "a whole number below 2^32");
  }
  number = static_cast<uint32_t>(count);
  return absl::OkStatus();
}

absl::Status DecodeFloat(const std::string& name, const InferParameter& value, float& number) {
  DIMMER_ASSIGN_OR_RETURN(const double real, ToDouble(name, value));
  if (std::isfinite(real) && std::abs(real) > std::numeric_limits<float>::max()) {
    return Wrong(name, value, "a number that fits in a float");
  }
  number = static_cast<float>(real);
  // Not 0, which says something else: the smallest there is.
  if (real > 0 && number == 0) number = std::numeric_limits<float>::min();
  return absl::OkStatus();
}

constexpr std::array<std::string_view, 6> kGenerateNames = {"max_tokens", "temperature", "top_k",
                                                            "top_p",      "seed",        "stop"};

bool IsGenerate(std::string_view name) {
  return std::find(kGenerateNames.begin(), kGenerateNames.end(), name) != kGenerateNames.end();
}

// Values are checked by the engine, which names them alike.
absl::Status DecodeGenerate(const std::string& name, const InferParameter& value,
                            GenerateOptions& options) {
  if (name == "max_tokens") return DecodeUint32(name, value, options.max_tokens);
  if (name == "top_k") return DecodeUint32(name, value, options.sampling.top_k);
  if (name == "temperature") return DecodeFloat(name, value, options.sampling.temperature);
  if (name == "top_p") return DecodeFloat(name, value, options.sampling.top_p);
  if (name == "seed") {
    DIMMER_ASSIGN_OR_RETURN(options.sampling.seed, ToCount(name, value));
    return absl::OkStatus();
  }
  if (value.parameter_choice_case() != InferParameter::kStringParam) {
    return Wrong(name, value, "a string");
  }
  options.stop = {value.string_param()};
  return absl::OkStatus();
}

bool Ignored(std::string_view name) {
  return std::find(kIgnored.begin(), kIgnored.end(), name) != kIgnored.end() ||
         std::any_of(kIgnoredPrefixes.begin(), kIgnoredPrefixes.end(),
                     [&](std::string_view prefix) { return name.starts_with(prefix); });
}

}  // namespace

absl::StatusOr<OipParameters> DecodeParameters(const OipParameterMap& parameters, Task task) {
  // In one order, whatever the map's: the same request gets the same message.
  std::vector<std::string> names;
  for (const auto& [name, value] : parameters) names.push_back(name);
  std::sort(names.begin(), names.end());
  std::vector<std::string> budgets;
  std::copy_if(names.begin(), names.end(), std::back_inserter(budgets),
               [](const std::string& name) { return BudgetKind(name).has_value(); });
  if (budgets.size() > 1) {
    return absl::InvalidArgumentError(fmt::format(
        "parameters: found both {} and {}, expected at most one budget", budgets[0], budgets[1]));
  }
  OipParameters decoded;
  for (const std::string& name : names) {
    const InferParameter& value = parameters.at(name);
    if (const auto kind = BudgetKind(name); kind.has_value()) {
      DIMMER_RETURN_IF_ERROR(DecodeBudget(name, *kind, value, decoded.budget));
    } else if (name == "truncate") {
      DIMMER_ASSIGN_OR_RETURN(decoded.truncate, ToBool(name, value));
    } else if (name == "timeout") {
      DIMMER_ASSIGN_OR_RETURN(const uint64_t micros, ToCount(name, value));
      constexpr uint64_t kMost = std::numeric_limits<int64_t>::max() / 4000;  // fits in ns
      if (micros > 0) decoded.timeout = std::chrono::microseconds(std::min(micros, kMost));
    } else if (task == Task::kGeneration && IsGenerate(name)) {
      DIMMER_RETURN_IF_ERROR(DecodeGenerate(name, value, decoded.generate));
    } else if (!Ignored(name)) {
      return absl::InvalidArgumentError(fmt::format(
          "parameters.{}: not a parameter of this model, expected {}, tau, flop_fraction, "
          "max_flops, "
          "min_quality, timeout or priority",
          name,
          task == Task::kGeneration ? "max_tokens, temperature, top_k, top_p, seed, stop"
                                    : "truncate"));
    }
  }
  return decoded;
}

}  // namespace dimmer
