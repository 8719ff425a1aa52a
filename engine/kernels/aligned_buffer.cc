#include "engine/kernels/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace dimmer::internal {
namespace {

constexpr size_t kAlignment = 64;
// From here on memory comes straight from the kernel: it is zeroed already, and goes back to it as
// soon as it is freed. Neighbouring mappings merge, so huge pages span several buffers.
constexpr size_t kMapBytes = size_t{1} << 20;

size_t RoundUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void* AllocateAligned(size_t bytes) {
  if (bytes == 0) return nullptr;
  if (bytes >= kMapBytes) {
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    madvise(data, bytes, MADV_HUGEPAGE);  // a hint; refused is fine
    return data;
  }
  void* data = std::aligned_alloc(kAlignment, RoundUp(bytes));
  if (data == nullptr) throw std::bad_alloc();
  std::memset(data, 0, RoundUp(bytes));
  return data;
}

void FreeAligned(void* data, size_t bytes) {
  if (data == nullptr) return;
  if (bytes >= kMapBytes) {
    munmap(data, bytes);
  } else {
    std::free(data);
  }
}

}  // namespace dimmer::internal
