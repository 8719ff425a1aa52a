#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <memory>
#include <vector>

#include "engine/package/input_file.h"
#include "engine/package/package.h"
#include "engine/util/status.h"

namespace dimmer {

absl::StatusOr<std::string> FileChecksum(const std::string& path) {
  DIMMER_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path));
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free);
  bool good = context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  // Read, not mapped: the pages of the file never count as the process's memory.
  std::vector<std::byte> buffer(size_t{256} << 10);
  while (good) {
    DIMMER_ASSIGN_OR_RETURN(const size_t count, file.Read(buffer));
    if (count == 0) break;
    good = EVP_DigestUpdate(context.get(), buffer.data(), count) == 1;
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest = {};
  unsigned int length = 0;
  good = good && EVP_DigestFinal_ex(context.get(), digest.data(), &length) == 1;
  if (!good) return absl::InternalError(fmt::format("{}: SHA-256 is not available", path));
  std::string checksum = "sha256:";
  for (unsigned int i = 0; i < length; ++i) checksum += fmt::format("{:02x}", digest[i]);
  return checksum;
}

}  // namespace dimmer
