#include "training/runtime.h"

#include <absl/strings/str_join.h>
#include <absl/strings/str_replace.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torch/csrc/api/include/torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <vector>

namespace dimmer {
namespace {

constexpr const char* kMarker = "DIMMER_CONVERT_ENVIRONMENT";
// What a shell takes as it stands.
constexpr std::string_view kPlain =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.,:/+";

const char* OpenBlasCore() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) return "Cooperlake";
  if (__builtin_cpu_supports("x86-64-v4")) return "SkylakeX";
#endif
  return nullptr;
}

}  // namespace

void EnsureEnvironment(char** argv) {
  if (std::getenv(kMarker) != nullptr) return;
  constexpr int kKeep = 0;
  // The variables that were set outside, for the program that starts again.
  setenv(kMarker, OpenBlasVariables(environ).c_str(), kKeep);
  setenv("OMP_NUM_THREADS", "1", kKeep);
  setenv("OPENBLAS_NUM_THREADS", "1", kKeep);
  setenv("OMP_WAIT_POLICY", "passive", kKeep);
  if (const char* core = OpenBlasCore()) setenv("OPENBLAS_CORETYPE", core, kKeep);
  // Activations are freed and allocated again in every step: keep their pages.
  setenv("MALLOC_MMAP_THRESHOLD_", "1073741824", kKeep);
  setenv("MALLOC_TRIM_THRESHOLD_", "1073741824", kKeep);
  setenv("MALLOC_TOP_PAD_", "67108864", kKeep);
  execv("/proc/self/exe", argv);
  // Not possible (no /proc): slower, but right.
}

std::string OpenBlasVariables(const char* const* environment) {
  std::vector<std::string> variables;
  for (; *environment != nullptr; ++environment) {
    const std::string_view variable = *environment;
    if (!variable.starts_with("OPENBLAS_")) continue;
    const size_t equals = std::min(variable.find('='), variable.size() - 1);
    std::string quoted(variable.substr(0, equals + 1));
    const std::string_view value = variable.substr(equals + 1);
    if (value.find_first_not_of(kPlain) == std::string_view::npos) {
      quoted += value;
    } else {
      quoted += "'" + absl::StrReplaceAll(std::string(value), {{"'", "'\\''"}}) + "'";
    }
    variables.push_back(std::move(quoted));
  }
  std::sort(variables.begin(), variables.end());
  return absl::StrJoin(variables, " ");
}

std::string OutsideEnvironment() {
  const char* kept = std::getenv(kMarker);
  return kept == nullptr ? "" : kept;
}

std::string MachineType() {
  std::ifstream info("/proc/cpuinfo");
  std::string name = "unknown processor";
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      name = line.substr(colon + 2);
      break;
    }
  }
  return fmt::format("{} ({})", name, WidestInstructionSet());
}

nlohmann::json Surroundings() {
  return {{"machine", MachineType()},
          {"libraries", LibraryVersions()},
          {"environment", OutsideEnvironment()}};
}

std::string WidestInstructionSet() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v4")) return "avx512";
  if (__builtin_cpu_supports("x86-64-v3")) return "avx2";
#endif
  return "x86-64";
}

std::string WhatOf(const std::exception& error) {
  const auto* from_torch = dynamic_cast<const c10::Error*>(&error);
  return from_torch == nullptr ? error.what() : from_torch->what_without_backtrace();
}

nlohmann::json LibraryVersions() {
  const char* core = std::getenv("OPENBLAS_CORETYPE");
  return {{"libtorch", TORCH_VERSION},
          {"openblas_kernels", core == nullptr ? "detected" : core},
          {"compiler", __VERSION__}};
}

}  // namespace dimmer
