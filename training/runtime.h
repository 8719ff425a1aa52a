// The process's surroundings that speed and bits depend on: threads and BLAS kernels.
#ifndef DIMMER_TRAINING_RUNTIME_H_
#define DIMMER_TRAINING_RUNTIME_H_

#include <nlohmann/json.hpp>
#include <string>

namespace dimmer {

// libtorch, OpenMP and OpenBLAS read their thread counts, and OpenBLAS its kernels, from the
// environment while the program is being loaded. Sets what a conversion needs and starts the
// program again with it, once: one thread each (the workers are the parallelism), and AVX-512
// kernels where the processor has them (OpenBLAS falls back to AVX2 on processors that it does not
// know, at half the speed). Variables that the user has set stay. Call first in main().
void EnsureEnvironment(char** argv);

// "avx512", "avx2" or "x86-64".
std::string WidestInstructionSet();

// Names and versions of what computes: libtorch, OpenBLAS's kernels, the compiler.
nlohmann::json LibraryVersions();

}  // namespace dimmer

#endif  // DIMMER_TRAINING_RUNTIME_H_
