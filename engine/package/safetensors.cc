#include "engine/package/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>

#include "engine/package/input_file.h"
#include "engine/package/json_fields.h"
#include "engine/util/status.h"

static_assert(std::endian::native == std::endian::little, "the format is little endian");

namespace dimmer {
namespace {

constexpr uint64_t kLengthBytes = 8;          // of the header's length, in front of it
constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr std::string_view kMetadata = "__metadata__";

struct DTypeInfo {
  DType dtype;
  std::string_view name;
  size_t size;
};
constexpr std::array<DTypeInfo, 10> kDTypes = {{{DType::kF32, "F32", 4},
                                                {DType::kF16, "F16", 2},
                                                {DType::kBF16, "BF16", 2},
                                                {DType::kF64, "F64", 8},
                                                {DType::kI64, "I64", 8},
                                                {DType::kI32, "I32", 4},
                                                {DType::kI16, "I16", 2},
                                                {DType::kI8, "I8", 1},
                                                {DType::kU8, "U8", 1},
                                                {DType::kBool, "BOOL", 1}}};

const DTypeInfo& Info(DType dtype) { return kDTypes[static_cast<size_t>(dtype)]; }

absl::StatusOr<DType> ParseDType(const JsonFields& entry) {
  DIMMER_ASSIGN_OR_RETURN(const std::string name, entry.String("dtype"));
  std::vector<std::string_view> known;
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name) return info.dtype;
    known.push_back(info.name);
  }
  return absl::InvalidArgumentError(fmt::format("{}: dtype: found \"{:.40}\", expected one of {}",
                                                entry.where(), name, fmt::join(known, ", ")));
}

// An array of non-negative integers.
absl::StatusOr<std::vector<int64_t>> ParseSizes(const JsonFields& entry, const char* key) {
  const nlohmann::json& object = entry.json();
  const auto it = object.find(key);
  const auto error = [&](std::string_view found) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {}: found {}, expected an array of integers that are not negative",
                    entry.where(), key, found));
  };
  if (it == object.end()) return error("nothing");
  if (!it->is_array()) return error(it->type_name());
  std::vector<int64_t> sizes;
  for (const nlohmann::json& value : *it) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > INT64_MAX) {
      return error(value.is_number() ? value.dump() : value.type_name());
    }
    sizes.push_back(static_cast<int64_t>(value.get<uint64_t>()));
  }
  return sizes;
}

// Elements times element size, or null if that does not fit in 63 bits.
std::optional<uint64_t> ByteSize(DType dtype, std::span<const int64_t> shape) {
  // A zero anywhere makes an empty tensor, however large the other sides are.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  auto bytes = static_cast<int64_t>(DTypeSize(dtype));
  for (const int64_t side : shape) {
    if (__builtin_mul_overflow(bytes, side, &bytes)) return std::nullopt;
  }
  return static_cast<uint64_t>(bytes);
}

struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
  const TensorView* tensor = nullptr;
};

// The tensors must tile the buffer: no overlap, no hole, nothing after the last.
absl::Status CheckTiling(const std::string& path, std::vector<Range> ranges, uint64_t buffer) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t position = 0;
  std::string_view previous = "the start of the data";
  for (const Range& range : ranges) {
    if (range.begin != position) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: tensor {}: found {} at offset {}, expected it to start at {}, the end of {}", path,
          range.tensor->name, range.begin < position ? "an overlap" : "a hole", range.begin,
          position, previous));
    }
    position = range.end;
    previous = range.tensor->name;
  }
  if (position == buffer) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: found {} bytes of data after the header, expected {}, the end of {}", path,
                  buffer, position, previous));
}

absl::StatusOr<TensorView> ParseTensor(const std::string& path, const std::string& name,
                                       const nlohmann::json& json,
                                       std::span<const std::byte> buffer, Range& range) {
  const std::string where = fmt::format("{}: tensor {}", path, name);
  DIMMER_ASSIGN_OR_RETURN(const JsonFields entry, JsonFields::Of(json, where));
  DIMMER_ASSIGN_OR_RETURN(const DType dtype, ParseDType(entry));
  DIMMER_ASSIGN_OR_RETURN(std::vector<int64_t> shape, ParseSizes(entry, "shape"));
  DIMMER_ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, ParseSizes(entry, "data_offsets"));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: data_offsets: found {}, expected [begin, end]", where, ShapeString(offsets)));
  }
  range.begin = static_cast<uint64_t>(offsets[0]);
  range.end = static_cast<uint64_t>(offsets[1]);
  if (range.end > buffer.size()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: data_offsets: found {}, expected them within the {} bytes of data in the "
                    "file (is it truncated?)",
                    where, ShapeString(offsets), buffer.size()));
  }
  const std::optional<uint64_t> bytes = ByteSize(dtype, shape);
  if (!bytes || *bytes != range.end - range.begin) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} bytes of data, expected {} for {} {}", where,
                    range.end - range.begin, bytes ? fmt::format("{}", *bytes) : "more than 2^63",
                    DTypeName(dtype), ShapeString(shape)));
  }
  TensorView view;
  view.name = name;
  view.dtype = dtype;
  view.shape = std::move(shape);
  view.data = buffer.subspan(range.begin, range.end - range.begin);
  view.file = path;
  return view;
}

}  // namespace

size_t DTypeSize(DType dtype) { return Info(dtype).size; }

std::string_view DTypeName(DType dtype) { return Info(dtype).name; }

bool IsFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

int64_t TensorView::elements() const {
  return static_cast<int64_t>(data.size() / DTypeSize(dtype));
}

std::string ShapeString(std::span<const int64_t> shape) {
  // A hostile shape may have a million sides.
  constexpr size_t kShown = 16;
  const auto shown = shape.first(std::min(shape.size(), kShown));
  return fmt::format("[{}{}]", fmt::join(shown, ", "), shape.size() > kShown ? ", ..." : "");
}

void ReleasePages(const TensorView& tensor) {
  if (tensor.data.empty()) return;
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const size_t before = reinterpret_cast<uintptr_t>(tensor.data.data()) % page;
  auto* first = const_cast<std::byte*>(tensor.data.data()) - before;
  // Advice only: if it fails, the memory is given back with the file.
  (void)::madvise(first, before + tensor.data.size(), MADV_DONTNEED);
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  DIMMER_ASSIGN_OR_RETURN(const InputFile file, InputFile::Open(path));
  if (file.size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found {} bytes, expected at least the {} of the header's length", path,
                    file.size(), kLengthBytes));
  }
  void* address = ::mmap(nullptr, file.size(), PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (address == MAP_FAILED) {
    return absl::ErrnoToStatus(errno,
                               fmt::format("{}: {} bytes can't be mapped", path, file.size()));
  }
  std::unique_ptr<SafetensorsFile> result(new SafetensorsFile());
  result->path_ = path;
  result->mapping_ = {static_cast<const std::byte*>(address), file.size()};
  DIMMER_RETURN_IF_ERROR(result->ParseHeader());
  return result;
}

SafetensorsFile::~SafetensorsFile() {
  if (!mapping_.empty()) ::munmap(const_cast<std::byte*>(mapping_.data()), mapping_.size());
}

absl::Status SafetensorsFile::ParseHeader() {
  uint64_t length = 0;
  std::memcpy(&length, mapping_.data(), kLengthBytes);
  const uint64_t limit = std::min<uint64_t>(mapping_.size() - kLengthBytes, kMaxHeader);
  if (length > limit) {
    return absl::InvalidArgumentError(
        fmt::format("{}: found a header of {} bytes, expected at most {} in a file of {}", path_,
                    length, limit, mapping_.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(mapping_.data()) + kLengthBytes,
                              length);
  const auto buffer = mapping_.subspan(kLengthBytes + length);
  const std::string where = fmt::format("{}: header", path_);
  DIMMER_ASSIGN_OR_RETURN(const nlohmann::json header, ParseJson(text, where));
  DIMMER_RETURN_IF_ERROR(JsonFields::Of(header, where).status());

  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.get_ref<const nlohmann::json::object_t&>()) {
    if (name == kMetadata) {
      DIMMER_ASSIGN_OR_RETURN(const JsonFields fields,
                              JsonFields::Of(entry, fmt::format("{}: {}", where, name)));
      for (const auto& item : entry.items()) {
        DIMMER_ASSIGN_OR_RETURN(metadata_[item.key()], fields.String(item.key()));
      }
      continue;
    }
    Range range;
    DIMMER_ASSIGN_OR_RETURN(TensorView view, ParseTensor(path_, name, entry, buffer, range));
    range.tensor = &tensors_.emplace(name, std::move(view)).first->second;
    ranges.push_back(range);
  }
  return CheckTiling(path_, std::move(ranges), buffer.size());
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace dimmer
