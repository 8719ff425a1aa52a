// The process's surroundings that speed and bits depend on: threads and BLAS kernels.
#ifndef DIMMER_TRAINING_RUNTIME_H_
#define DIMMER_TRAINING_RUNTIME_H_

#include <exception>
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

// "AMD EPYC 9B14 (avx512)": the processor's name, and the widest instruction set used.
std::string MachineType();

// The OPENBLAS_* variables of an environment as a shell takes them in front of a command, sorted:
// they choose kernels and block sizes, so a result's bits depend on them.
std::string OpenBlasVariables(const char* const* environment);

// OpenBlasVariables() of the environment that the user started the program in.
std::string OutsideEnvironment();

// Machine, libraries and environment, for the report of a stage that is computed now.
nlohmann::json Surroundings();

// What an exception says, without the C++ backtrace that libtorch appends.
std::string WhatOf(const std::exception& error);

// Names and versions of what computes: libtorch, OpenBLAS's kernels, the compiler.
nlohmann::json LibraryVersions();

}  // namespace dimmer

#endif  // DIMMER_TRAINING_RUNTIME_H_
