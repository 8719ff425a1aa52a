#include "engine/layers/kv_cache.h"

#include <utility>

namespace dimmer {

KvPages::KvPages(KvPages&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), pages_(std::exchange(other.pages_, {})) {}

KvPages& KvPages::operator=(KvPages&& other) noexcept {
  if (this == &other) return *this;
  Release();
  pool_ = std::exchange(other.pool_, nullptr);
  pages_ = std::exchange(other.pages_, {});
  return *this;
}

void KvPages::Release() {
  if (pool_ == nullptr) return;
  std::lock_guard lock(pool_->mutex_);
  // Room for all pages was made with the pool: this does not allocate.
  pool_->free_.insert(pool_->free_.end(), pages_.rbegin(), pages_.rend());
  pages_.clear();
  pool_ = nullptr;
}

KvPool::KvPool(const KvShape& shape, size_t pages)
    : shape_(shape),
      pages_(pages),
      block_(shape.heads * KvHeadBlock(shape.head_dim)),
      memory_(pages * 2 * shape.layers * block_) {
  free_.reserve(pages);
  for (size_t page = pages; page-- > 0;) free_.push_back(static_cast<uint32_t>(page));
}

std::optional<KvPages> KvPool::Reserve(size_t tokens) {
  const size_t count = PagesFor(tokens);
  std::vector<uint32_t> pages;
  pages.reserve(count);
  std::lock_guard lock(mutex_);
  if (free_.size() < count) return std::nullopt;
  pages.assign(free_.rbegin(), free_.rbegin() + static_cast<std::ptrdiff_t>(count));
  free_.resize(free_.size() - count);
  return KvPages(this, std::move(pages));
}

size_t KvPool::free_pages() const {
  std::lock_guard lock(mutex_);
  return free_.size();
}

}  // namespace dimmer
