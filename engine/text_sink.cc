#include "engine/text_sink.h"

#include <exception>
#include <limits>
#include <utility>

#include "engine/util/status.h"

namespace dimmer {
namespace {

constexpr size_t kUnknown = std::numeric_limits<size_t>::max();

uint64_t Microseconds(TextSink::Clock::duration time) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(time).count());
}

}  // namespace

TextSink::TextSink(std::shared_ptr<const Tokenizer> tokenizer, std::optional<int32_t> previous,
                   const std::vector<std::string>& stops, std::function<bool(Piece)> on_piece,
                   Clock::time_point submitted)
    : tokenizer_(std::move(tokenizer)),
      matcher_(stops),
      on_piece_(std::move(on_piece)),
      submitted_(submitted) {
  if (tokenizer_ != nullptr) stream_.emplace(*tokenizer_, previous);
}

TokenSink::Verdict TextSink::OnToken(int32_t id, float logprob) try {
  last_token_ = Clock::now();
  if (ids_.empty()) first_token_ = last_token_;
  ids_.push_back(id);
  logprobs_.push_back(logprob);
  held_.push_back({id, logprob, kUnknown});
  std::string text;
  if (stream_) text = stream_->Push(id);
  streamed_ += text.size();
  if (!stream_ || !stream_->holds_back()) {
    for (size_t i = held_.size(); i-- > 0 && held_[i].end == kUnknown;) held_[i].end = streamed_;
  }
  const std::string released = matcher_.Push(text);
  // Without a tokenizer there is no text to wait for.
  if (!released.empty() || !stream_) Release(released);
  return matcher_.stopped() || !failure_.ok() ? Verdict::kStop : Verdict::kContinue;
} catch (const std::exception& error) {  // out of memory
  failure_ = absl::InternalError(fmt::format("a token was not delivered: {}", error.what()));
  return Verdict::kStop;
}

void TextSink::Release(const std::string& text) {
  text_ += text;
  Piece piece{.text = text, .ids = {}, .logprobs = {}};
  size_t whole = 0;  // tokens
  while (whole < held_.size() && held_[whole].end <= text_.size()) {
    piece.ids.push_back(held_[whole].id);
    piece.logprobs.push_back(held_[whole].logprob);
    ++whole;
  }
  held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(whole));
  Emit(std::move(piece));
}

void TextSink::Emit(Piece piece) {
  if (!on_piece_ || !failure_.ok()) return;
  // In this order a Resume() that comes while on_piece still runs is not lost.
  ready_.store(false, std::memory_order_release);
  bool more = true;
  try {
    more = on_piece_(std::move(piece));
  } catch (const std::exception& error) {
    failure_ = absl::InternalError(fmt::format("on_piece failed: {}", error.what()));
  } catch (...) {
    failure_ = absl::InternalError("on_piece failed");
  }
  if (more) Resume();
}

absl::Status TextSink::Finish(Result& result) {
  std::string rest;
  if (!matcher_.stopped()) {
    if (stream_) rest = matcher_.Push(stream_->Finish());
    rest += matcher_.Finish();
  }
  for (Held& token : held_) token.end = 0;
  if (!rest.empty() || !held_.empty()) Release(rest);
  result.text = std::move(text_);
  result.output_ids = std::move(ids_);
  result.logprobs = std::move(logprobs_);
  if (!result.output_ids.empty()) {
    result.first_token_us = Microseconds(first_token_ - submitted_);
    result.last_token_us = Microseconds(last_token_ - submitted_);
  }
  return failure_;
}

}  // namespace dimmer
