// Keys and values of running sequences, in pages of a bounded pool.
//
// Thread safety: KvPool may be used from any thread; a KvPages belongs to its sequence.
#ifndef DIMMER_ENGINE_LAYERS_KV_CACHE_H_
#define DIMMER_ENGINE_LAYERS_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/kernels/aligned_buffer.h"
#include "engine/kernels/cached_attention.h"

namespace dimmer {

// Of one token's keys (and values): all 0 for a model that keeps none.
struct KvShape {
  uint32_t layers = 0;
  uint32_t heads = 0;  // of keys and values
  uint32_t head_dim = 0;
};

class KvPool;

// The pages of one sequence, given back when this ends. Must not outlive the pool.
class KvPages {
 public:
  KvPages() = default;
  ~KvPages() { Release(); }
  KvPages(KvPages&& other) noexcept;
  KvPages& operator=(KvPages&& other) noexcept;

  size_t pages() const { return pages_.size(); }
  size_t tokens() const { return pages_.size() * kKvPageTokens; }
  // Of the page with tokens [page, page + 1) x kKvPageTokens: a block of KvHeadBlock(head_dim)
  // floats per head, laid out as kernels/cached_attention.h says.
  float* k(size_t layer, size_t page) const;
  float* v(size_t layer, size_t page) const;
  // Where all pages of a layer are.
  KvView layer(size_t layer) const;

 private:
  friend class KvPool;
  KvPages(KvPool* pool, std::vector<uint32_t> pages) : pool_(pool), pages_(std::move(pages)) {}
  void Release();

  KvPool* pool_ = nullptr;
  std::vector<uint32_t> pages_;
};

class KvPool {
 public:
  // Address space for all pages at once; memory as they are first used.
  KvPool(const KvShape& shape, size_t pages);

  static size_t PagesFor(size_t tokens) { return (tokens + kKvPageTokens - 1) / kKvPageTokens; }

  // Pages for `tokens` tokens, or nothing if too few are free.
  std::optional<KvPages> Reserve(size_t tokens);

  size_t pages() const { return pages_; }
  size_t free_pages() const;
  size_t page_bytes() const { return 2 * shape_.layers * block_ * sizeof(float); }
  const KvShape& shape() const { return shape_; }

 private:
  friend class KvPages;
  float* block(uint32_t page, size_t layer, bool value) {
    return memory_.data() + ((size_t{page} * shape_.layers + layer) * 2 + (value ? 1 : 0)) * block_;
  }

  const KvShape shape_;
  const size_t pages_;
  const size_t block_;  // floats of one layer's keys in a page
  AlignedBuffer<float> memory_;
  mutable std::mutex mutex_;
  std::vector<uint32_t> free_;
};

inline float* KvPages::k(size_t layer, size_t page) const {
  return pool_->block(pages_[page], layer, false);
}
inline KvView KvPages::layer(size_t layer) const {
  return {.keys = pool_->block(0, layer, false),
          .values = pool_->block(0, layer, true),
          .pages = pages_.data(),
          .page_stride = 2 * pool_->shape_.layers * pool_->block_};
}
inline float* KvPages::v(size_t layer, size_t page) const {
  return pool_->block(pages_[page], layer, true);
}

}  // namespace dimmer

#endif  // DIMMER_ENGINE_LAYERS_KV_CACHE_H_
