// A package: one model version on disk. A Hugging Face checkpoint directory, plus, where it was
// converted, dimmer.json and routers.safetensors (docs/package.md).
#ifndef DIMMER_ENGINE_PACKAGE_PACKAGE_H_
#define DIMMER_ENGINE_PACKAGE_PACKAGE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/budget/calibration.h"
#include "engine/budget/usage.h"
#include "engine/package/safetensors.h"

namespace dimmer {

// The weights of a checkpoint, under their stored names: model.safetensors, or the shards of
// model.safetensors.index.json. Immutable after Open; safe for concurrent reads.
class Weights {
 public:
  // NotFound: no weights. InvalidArgument: malformed, or in a format that is not read.
  static absl::StatusOr<Weights> Open(const std::string& directory);

  const TensorView* Find(std::string_view name) const;  // null if absent
  // NotFound if absent; InvalidArgument if the shape or the dtype (float wanted) is another one.
  absl::StatusOr<TensorView> Get(std::string_view name, std::span<const int64_t> shape) const;
  // Get + ReadFloats into a new vector; then the source pages are released.
  absl::StatusOr<std::vector<float>> Floats(std::string_view name,
                                            std::span<const int64_t> shape) const;
  std::vector<std::string> names() const;
  std::vector<std::string> files() const;  // paths
  uint64_t fp32_bytes() const;             // 4 x all float elements

 private:
  std::vector<std::shared_ptr<SafetensorsFile>> files_;
};

// One converted module. Expert n is neurons [n * expert_size, (n + 1) * expert_size) of the stored
// matrices; the last expert may not be short: experts * expert_size is the module's hidden width.
struct MoeModuleSpec {
  uint32_t layer = 0;
  Module module = Module::kFfn;
  uint32_t experts = 0;
  uint32_t expert_size = 0;
  uint32_t router_width = 0;
};

enum class GateKind : uint8_t { kDynamicK, kTopK };

struct GateSpec {
  GateKind kind = GateKind::kDynamicK;
  double default_tau = 0;  // dynamic-k
  uint32_t top_k = 0;      // top-k only
};

// dimmer.json, format version 1.
struct MoeSpec {
  std::vector<MoeModuleSpec> modules;  // ascending (layer, module)
  GateSpec gate;
  Calibration calibration;
  nlohmann::json provenance;  // command, seed, data, library versions; shown, never interpreted
};

inline constexpr int kPackageFormatVersion = 1;

// Open for reading. Holds the mappings: a Model packs what it needs and then drops the Package.
struct Package {
  std::string directory;
  std::string architecture;  // config.json "architectures"[0]
  nlohmann::json config;     // config.json
  Weights weights;
  std::optional<MoeSpec> moe;                // null: plain checkpoint, dense only
  std::shared_ptr<SafetensorsFile> routers;  // null with moe
  // Reads config.json, dimmer.json and the tensor files' headers, and verifies the checksums that
  // dimmer.json states. Tensors' shapes are the model's to check (engine/models).
  static absl::StatusOr<Package> Open(const std::string& directory);
};

// Names of the tensors in routers.safetensors: "layers.<l>.<module>.router.w1" [router_width, d]
// and
// ".w2" [experts, router_width].
std::string RouterTensorName(uint32_t layer, Module module, int which /* 1 or 2 */);

nlohmann::json ToJson(const MoeSpec& spec);
absl::StatusOr<MoeSpec> MoeSpecFromJson(const nlohmann::json& json, const std::string& where);

// Writes dimmer.json for the files that already lie in `directory`, with their checksums. Atomic,
// and the last file of a package to appear: a directory without it is a plain checkpoint.
absl::Status WriteMoeSpec(const std::string& directory, const MoeSpec& spec);

// "sha256:<hex>" of a file.
absl::StatusOr<std::string> FileChecksum(const std::string& path);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_PACKAGE_PACKAGE_H_
