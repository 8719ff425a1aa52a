// Reading and writing of the safetensors format (github.com/huggingface/safetensors, "Format").
//
// A file from outside is hostile until checked: Open() verifies the header size, the JSON, every
// dtype, shape and offset (in range, aligned with shape x dtype, not overlapping, no holes) before
// anything is allocated in proportion to a number found in the file.
#ifndef DIMMER_ENGINE_PACKAGE_SAFETENSORS_H_
#define DIMMER_ENGINE_PACKAGE_SAFETENSORS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dimmer {

enum class DType : uint8_t { kF32, kF16, kBF16, kF64, kI64, kI32, kI16, kI8, kU8, kBool };

size_t DTypeSize(DType dtype);            // bytes per element
std::string_view DTypeName(DType dtype);  // "F32", as in the file
bool IsFloat(DType dtype);                // one that ReadFloats takes: F32, F16, BF16

// A tensor in a mapped file. Valid as long as its SafetensorsFile lives.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
  std::string file;  // for messages

  int64_t elements() const;
};

// "[3, 4]"
std::string ShapeString(std::span<const int64_t> shape);

// Copies a float tensor (F32, F16, BF16) to `out` [elements()] as fp32.
// InvalidArgument names file, tensor and index of the first value that is NaN or infinite.
absl::Status ReadFloats(const TensorView& tensor, std::span<float> out);

// Gives the memory of the tensor's pages back to the system; they are read from the file again when
// touched. Pages shared with neighbouring tensors go too, which costs them time and nothing else.
void ReleasePages(const TensorView& tensor);

// A mapped file. Immutable after Open; safe for concurrent reads.
class SafetensorsFile {
 public:
  // NotFound: no such file. InvalidArgument: malformed; the message names file, tensor, what was
  // found and what was expected.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  const TensorView* Find(std::string_view name) const;  // null if absent

 private:
  SafetensorsFile() = default;
  absl::Status ParseHeader();

  std::string path_;
  std::span<const std::byte> mapping_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

// A tensor to be written; `values` is fp32 and is stored as `dtype` (kF32, kF16 or kBF16).
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const float> values;
};

// Writes atomically: a temporary file beside `path`, synced, then renamed. A full disk leaves the
// old file as it was and no temporary one behind.
absl::Status WriteSafetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_PACKAGE_SAFETENSORS_H_
