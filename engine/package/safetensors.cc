#include "engine/package/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/package/atomic_file.h"
#include "engine/package/json_fields.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the format's own reader
constexpr size_t kMaxDimensions = 8;
constexpr size_t kAlignment = 8;

struct DTypeEntry {
  DType dtype;
  std::string_view name;
  size_t size;
};
constexpr DTypeEntry kDTypes[] = {{DType::kF32, "F32", 4},   {DType::kF16, "F16", 2},
                                  {DType::kBF16, "BF16", 2}, {DType::kF64, "F64", 8},
                                  {DType::kI64, "I64", 8},   {DType::kI32, "I32", 4},
                                  {DType::kI16, "I16", 2},   {DType::kI8, "I8", 1},
                                  {DType::kU8, "U8", 1},     {DType::kBool, "BOOL", 1}};

const DTypeEntry& EntryOf(DType dtype) {
  return *std::find_if(std::begin(kDTypes), std::end(kDTypes),
                       [&](const DTypeEntry& entry) { return entry.dtype == dtype; });
}

absl::Status Malformed(const std::string& file, std::string_view tensor, std::string_view what) {
  return absl::InvalidArgumentError(tensor.empty()
                                        ? fmt::format("{}: {}", file, what)
                                        : fmt::format("{}: tensor {}: {}", file, tensor, what));
}

absl::StatusOr<DType> ReadDType(const JsonFields& fields) {
  DIMMER_ASSIGN_OR_RETURN(const std::string name, fields.String("dtype"));
  for (const DTypeEntry& entry : kDTypes) {
    if (entry.name == name) return entry.dtype;
  }
  return absl::InvalidArgumentError(fmt::format(
      "{}: dtype: found {}, expected F32, F16, BF16, F64, I64, I32, I16, I8, U8 or BOOL",
      fields.where(), name));
}

// An array of non-negative integers of at most `max_size` entries.
absl::StatusOr<std::vector<uint64_t>> ReadNaturals(const JsonFields& fields, const char* key,
                                                   size_t max_size) {
  std::vector<uint64_t> values;
  const auto it = fields.json().find(key);
  const bool usable = it != fields.json().end() && it->is_array() && it->size() <= max_size &&
                      std::all_of(it->begin(), it->end(), [](const nlohmann::json& value) {
                        return value.is_number_unsigned();
                      });
  if (!usable) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: {}: found {}, expected at most {} non-negative integers", fields.where(), key,
        it == fields.json().end() ? "nothing" : it->dump().substr(0, 60), max_size));
  }
  for (const nlohmann::json& value : *it) values.push_back(value.get<uint64_t>());
  return values;
}

// Bytes of a tensor; InvalidArgument if the product overflows.
absl::StatusOr<uint64_t> TensorBytes(const JsonFields& fields, std::span<const uint64_t> shape,
                                     DType dtype) {
  uint64_t bytes = DTypeSize(dtype);
  for (const uint64_t dimension : shape) {
    if (__builtin_mul_overflow(bytes, dimension, &bytes) || bytes > uint64_t{1} << 48) {
      return absl::InvalidArgumentError(
          fmt::format("{}: shape: found more than 2^48 bytes", fields.where()));
    }
  }
  return bytes;
}

struct Range {
  uint64_t begin, end;
  std::string_view tensor;
};

// The tensors' bytes must fill [0, size) without gap or overlap.
absl::Status CheckCoverage(const std::string& file, std::vector<Range> ranges, uint64_t size) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t expected = 0;
  for (const Range& range : ranges) {
    if (range.begin != expected) {
      return Malformed(
          file, range.tensor,
          fmt::format(
              "data_offsets: found a begin of {}, expected {} ({})", range.begin, expected,
              range.begin < expected ? "it overlaps another tensor" : "nothing lies between"));
    }
    expected = range.end;
  }
  if (expected == size) return absl::OkStatus();
  return Malformed(file, "",
                   fmt::format("found {} bytes after the header, expected {} (truncated, or with "
                               "bytes that belong to no tensor)",
                               size, expected));
}

}  // namespace

size_t DTypeSize(DType dtype) { return EntryOf(dtype).size; }
std::string_view DTypeName(DType dtype) { return EntryOf(dtype).name; }

int64_t TensorView::elements() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

std::string ShapeString(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string message = fmt::format("{}: {}", path, std::strerror(errno));
    return errno == ENOENT || errno == ENOTDIR ? absl::NotFoundError(message)
                                               : absl::InvalidArgumentError(message);
  }
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->path_ = path;
  struct stat info {};
  absl::Status status;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = Malformed(path, "", "not a regular file");
  } else if (info.st_size < 8) {
    status = Malformed(
        path, "",
        fmt::format("found {} bytes, expected a header of at least 8 (truncated)", info.st_size));
  } else {
    const auto size = static_cast<size_t>(info.st_size);
    void* mapping = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) {
      status = Malformed(path, "", fmt::format("can't be mapped: {}", std::strerror(errno)));
    } else {
      file->mapping_ = {static_cast<const std::byte*>(mapping), size};
    }
  }
  close(fd);
  if (status.ok()) status = file->ParseHeader();
  if (!status.ok()) return status;
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (!mapping_.empty()) munmap(const_cast<std::byte*>(mapping_.data()), mapping_.size());
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

absl::Status SafetensorsFile::ParseHeader() {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, mapping_.data(), sizeof(header_bytes));
  const uint64_t most = std::min<uint64_t>(kMaxHeaderBytes, mapping_.size() - 8);
  if (header_bytes > most) {
    return Malformed(path_, "",
                     fmt::format("header length: found {}, expected at most {} (truncated, or not "
                                 "a safetensors file)",
                                 header_bytes, most));
  }
  const std::string_view text(reinterpret_cast<const char*>(mapping_.data()) + 8, header_bytes);
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path_ + ": header"));
  DIMMER_ASSIGN_OR_RETURN(const JsonFields header, JsonFields::Of(json, path_ + ": header"));

  const std::span<const std::byte> buffer = mapping_.subspan(8 + header_bytes);
  std::vector<Range> ranges;
  for (const auto& [name, value] : header.json().items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) return Malformed(path_, "", "__metadata__: expected an object");
      for (const auto& [key, text_value] : value.items()) {
        if (text_value.is_string()) metadata_[key] = text_value.get<std::string>();
      }
      continue;
    }
    DIMMER_ASSIGN_OR_RETURN(const JsonFields fields,
                            JsonFields::Of(value, fmt::format("{}: tensor {}", path_, name)));
    TensorView tensor;
    tensor.name = name;
    tensor.file = path_;
    DIMMER_ASSIGN_OR_RETURN(tensor.dtype, ReadDType(fields));
    DIMMER_ASSIGN_OR_RETURN(const auto shape, ReadNaturals(fields, "shape", kMaxDimensions));
    DIMMER_ASSIGN_OR_RETURN(const auto offsets, ReadNaturals(fields, "data_offsets", 2));
    DIMMER_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(fields, shape, tensor.dtype));
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > buffer.size()) {
      return Malformed(path_, name,
                       fmt::format("data_offsets: found [{}], expected [begin, end] within the {} "
                                   "bytes after the header",
                                   fmt::join(offsets, ", "), buffer.size()));
    }
    if (offsets[1] - offsets[0] != bytes) {
      return Malformed(path_, name,
                       fmt::format("data_offsets: found {} bytes, expected {} for {} [{}]",
                                   offsets[1] - offsets[0], bytes, DTypeName(tensor.dtype),
                                   fmt::join(shape, ", ")));
    }
    tensor.shape.assign(shape.begin(), shape.end());
    tensor.data = buffer.subspan(offsets[0], bytes);
    const auto& placed = tensors_.emplace(name, std::move(tensor)).first;
    ranges.push_back({offsets[0], offsets[1], placed->first});
  }
  return CheckCoverage(path_, std::move(ranges), buffer.size());
}

namespace {

absl::Status Convert(const std::string& path, const TensorToWrite& tensor,
                     std::vector<uint16_t>& out) {
  out.resize(tensor.values.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const float value = tensor.values[i];
    out[i] = tensor.dtype == DType::kF16 ? FloatToHalf(value) : FloatToBFloat16(value);
    const float stored =
        tensor.dtype == DType::kF16 ? HalfToFloat(out[i]) : BFloat16ToFloat(out[i]);
    if (!std::isfinite(stored)) {
      return Malformed(path, tensor.name,
                       fmt::format("found {} at index {}, expected a finite value that fits {}",
                                   value, i, DTypeName(tensor.dtype)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckToWrite(const std::string& path, const TensorToWrite& tensor) {
  const bool float_type =
      tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16;
  if (!float_type) {
    return Malformed(
        path, tensor.name,
        fmt::format("can't be written as {}, expected F32, F16 or BF16", DTypeName(tensor.dtype)));
  }
  int64_t elements = 1;
  for (const int64_t dimension : tensor.shape) elements *= dimension;
  if (elements == static_cast<int64_t>(tensor.values.size())) return absl::OkStatus();
  return Malformed(path, tensor.name,
                   fmt::format("found {} values, expected {} for {}", tensor.values.size(),
                               elements, ShapeString(tensor.shape)));
}

absl::Status WriteTensor(AtomicFile& file, const std::string& path, const TensorToWrite& tensor) {
  if (tensor.dtype != DType::kF32) {
    std::vector<uint16_t> values;
    DIMMER_RETURN_IF_ERROR(Convert(path, tensor, values));
    return file.Write(values.data(), values.size() * sizeof(uint16_t));
  }
  for (size_t i = 0; i < tensor.values.size(); ++i) {
    if (!std::isfinite(tensor.values[i])) {
      return Malformed(
          path, tensor.name,
          fmt::format("found {} at index {}, expected a finite value", tensor.values[i], i));
    }
  }
  return file.Write(tensor.values.data(), tensor.values.size_bytes());
}

}  // namespace

absl::Status WriteSafetensors(const std::string& path, std::span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    DIMMER_RETURN_IF_ERROR(CheckToWrite(path, tensor));
    if (header.contains(tensor.name)) return Malformed(path, tensor.name, "is there twice");
    const uint64_t end = offset + tensor.values.size() * DTypeSize(tensor.dtype);
    header[tensor.name] = {{"dtype", std::string(DTypeName(tensor.dtype))},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');

  DIMMER_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  const uint64_t header_bytes = text.size();
  DIMMER_RETURN_IF_ERROR(file.Write(&header_bytes, sizeof(header_bytes)));
  DIMMER_RETURN_IF_ERROR(file.Write(text.data(), text.size()));
  for (const TensorToWrite& tensor : tensors) {
    DIMMER_RETURN_IF_ERROR(WriteTensor(file, path, tensor));
  }
  return file.Commit();
}

}  // namespace dimmer
