#include "engine/text/byte_alphabet.h"

#include "engine/text/utf8.h"

namespace dimmer {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr size_t kSubstitutes = 68;

constexpr bool StandsForItself(size_t byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

constexpr std::array<char32_t, 256> MakeAlphabet() {
  std::array<char32_t, 256> letters = {};
  char32_t next = kFirstSubstitute;
  for (size_t byte = 0; byte < 256; ++byte) {
    letters[byte] = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
  }
  return letters;
}
constexpr std::array<char32_t, 256> kAlphabet = MakeAlphabet();

// The bytes behind U+0100 and up.
constexpr std::array<unsigned char, kSubstitutes> MakeSubstituted() {
  std::array<unsigned char, kSubstitutes> bytes = {};
  for (size_t byte = 0; byte < 256; ++byte) {
    if (kAlphabet[byte] >= kFirstSubstitute) {
      bytes[kAlphabet[byte] - kFirstSubstitute] = static_cast<unsigned char>(byte);
    }
  }
  return bytes;
}
constexpr std::array<unsigned char, kSubstitutes> kSubstituted = MakeSubstituted();

}  // namespace

const std::array<char32_t, 256>& ByteAlphabet() { return kAlphabet; }

std::string BytesToLetters(std::string_view bytes) {
  std::string letters;
  for (const char c : bytes) AppendUtf8(kAlphabet[static_cast<unsigned char>(c)], letters);
  return letters;
}

std::optional<std::string> LettersToBytes(std::string_view letters) {
  std::u32string code_points;
  AppendCodePoints(letters, code_points);
  std::string bytes;
  for (const char32_t c : code_points) {
    if (c < 0x100 && StandsForItself(c)) {
      bytes += static_cast<char>(c);
    } else if (c >= kFirstSubstitute && c < kFirstSubstitute + kSubstitutes) {
      bytes += static_cast<char>(kSubstituted[c - kFirstSubstitute]);
    } else {
      return std::nullopt;
    }
  }
  return bytes;
}

}  // namespace dimmer
