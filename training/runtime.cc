#include "training/runtime.h"

#include <torch/csrc/api/include/torch/version.h>
#include <unistd.h>

#include <cstdlib>

namespace dimmer {
namespace {

constexpr const char* kMarker = "DIMMER_CONVERT_ENVIRONMENT";

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
  setenv(kMarker, "1", kKeep);
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

std::string WidestInstructionSet() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v4")) return "avx512";
  if (__builtin_cpu_supports("x86-64-v3")) return "avx2";
#endif
  return "x86-64";
}

nlohmann::json LibraryVersions() {
  const char* core = std::getenv("OPENBLAS_CORETYPE");
  return {{"libtorch", TORCH_VERSION},
          {"openblas_kernels", core == nullptr ? "detected" : core},
          {"compiler", __VERSION__}};
}

}  // namespace dimmer
