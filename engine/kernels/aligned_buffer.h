// Memory for weights and activations: aligned to a vector, zeroed, and backed by huge pages where
// it is large (the weights of one forward pass are far more than a TLB covers).
//
// Thread safety: as a std::vector.
#ifndef DIMMER_ENGINE_KERNELS_ALIGNED_BUFFER_H_
#define DIMMER_ENGINE_KERNELS_ALIGNED_BUFFER_H_

#include <cstddef>
#include <type_traits>
#include <utility>

namespace dimmer {

namespace internal {
// Zeroed memory, aligned to 64 bytes at least. Running out of memory throws std::bad_alloc.
// FreeAligned takes the same number of bytes.
void* AllocateAligned(size_t bytes);
void FreeAligned(void* data, size_t bytes);
}  // namespace internal

template <typename T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t size)
      : data_(static_cast<T*>(internal::AllocateAligned(size * sizeof(T)))), size_(size) {}
  ~AlignedBuffer() { internal::FreeAligned(data_, size_ * sizeof(T)); }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_KERNELS_ALIGNED_BUFFER_H_
