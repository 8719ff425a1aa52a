#include "engine/model_table.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "engine/layers/kv_cache.h"
#include "engine/package/package.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

// Where config.yaml says nothing: 64 whole contexts, or as many as this holds, but one at least.
constexpr size_t kDefaultKvBytes = size_t{1} << 30;

absl::StatusOr<std::unique_ptr<Model>> PackModel(const std::string& directory) {
  DIMMER_ASSIGN_OR_RETURN(const Package package, Package::Open(directory));
  return LoadModel(package);  // the mappings go with the package
}

// Null if the checkpoint has no tokenizer files.
absl::StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFor(const std::string& directory,
                                                              const ModelInfo& info) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = LoadTokenizer(directory);
  if (absl::IsNotFound(tokenizer.status())) return nullptr;
  if (!tokenizer.ok()) return tokenizer.status();
  if ((*tokenizer)->vocab_size() > info.vocab_size) {
    return absl::InvalidArgumentError(
        fmt::format("{}: the tokenizer has {} tokens, but the model embeds only {}", directory,
                    (*tokenizer)->vocab_size(), info.vocab_size));
  }
  return *std::move(tokenizer);
}

// Null for a model that keeps no keys and values.
absl::StatusOr<std::shared_ptr<KvPool>> PoolFor(const ServingConfig& serving, const ModelInfo& info,
                                                uint32_t context) {
  if (info.kv.layers == 0) return nullptr;
  const size_t page_bytes = std::max<size_t>(KvPool(info.kv, 0).page_bytes(), 1);
  const size_t one = KvPool::PagesFor(context);
  size_t pages = KvPool::PagesFor(serving.kv_cache_tokens);
  if (pages == 0) pages = std::max(one, std::min(64 * one, kDefaultKvBytes / page_bytes));
  try {
    return std::make_shared<KvPool>(info.kv, pages);
  } catch (const std::exception&) {
    return absl::ResourceExhaustedError(fmt::format(
        "the key-value cache for {} tokens takes {} MiB, which the system does not give; set "
        "kv_cache_tokens (found {}) or max_sequence_tokens (found {}) lower in config.yaml",
        pages * kKvPageTokens, pages * page_bytes >> 20, serving.kv_cache_tokens,
        serving.max_sequence_tokens));
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const LoadedModel>> LoadFromDisk(const RepositoryEntry& entry) {
  DIMMER_RETURN_IF_ERROR(entry.status);
  auto served = std::make_shared<ServedModel>();
  served->name = entry.model;
  served->version = entry.version;
  served->limits = {.max_batch_tokens = entry.serving.max_batch_tokens,
                    .max_batch_size = entry.serving.max_batch_size};
  DIMMER_ASSIGN_OR_RETURN(served->model, PackModel(entry.directory));
  const ModelInfo& info = served->model->info();
  auto loaded = std::make_shared<LoadedModel>();
  DIMMER_ASSIGN_OR_RETURN(loaded->tokenizer, TokenizerFor(entry.directory, info));
  const uint32_t asked = entry.serving.max_sequence_tokens;
  loaded->max_tokens = asked == 0 ? info.max_tokens : std::min(asked, info.max_tokens);
  DIMMER_ASSIGN_OR_RETURN(served->kv, PoolFor(entry.serving, info, loaded->max_tokens));
  loaded->served = std::move(served);
  return loaded;
}

void ModelTable::Serve(std::shared_ptr<const LoadedModel> loaded, double load_seconds) {
  std::lock_guard lock(mutex_);
  Entry& entry = entries_[loaded->name()];
  entry.status = {.name = loaded->name(),
                  .version = loaded->served->version,
                  .ready = true,
                  .status = absl::OkStatus(),
                  .load_seconds = load_seconds,
                  .served = loaded->served};
  entry.loaded = std::move(loaded);
}

void ModelTable::Fail(const RepositoryEntry& failed, const absl::Status& status,
                      double load_seconds) {
  std::lock_guard lock(mutex_);
  Entry& entry = entries_[failed.model];
  entry.status.status = status;
  if (entry.loaded != nullptr) return;
  entry.status.name = failed.model;
  entry.status.version = failed.version;
  entry.status.load_seconds = load_seconds;
}

std::vector<ModelStatus> ModelTable::All() const {
  std::lock_guard lock(mutex_);
  std::vector<ModelStatus> all;
  all.reserve(entries_.size());
  for (const auto& [name, entry] : entries_) all.push_back(entry.status);
  return all;
}

absl::StatusOr<std::shared_ptr<const LoadedModel>> ModelTable::Find(
    const std::string& model, const std::string& version) const {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(model);
  if (found == entries_.end()) return UnknownModel(model);
  const Entry& entry = found->second;
  if (!version.empty() && version != entry.status.version) return UnknownModel(model, version);
  if (entry.loaded == nullptr) {
    return absl::UnavailableError(
        fmt::format("model {} is not ready: {}", model, Message(entry.status.status)));
  }
  return entry.loaded;
}

}  // namespace dimmer
