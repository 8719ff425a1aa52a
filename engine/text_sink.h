// The reader's end of a generation: from its tokens to the pieces of its text.
//
// Thread safety: OnToken and Finish are called by one thread at a time (the worker that runs the
// sequence); ready, last_read, Touch and Resume from any.
#ifndef DIMMER_ENGINE_TEXT_SINK_H_
#define DIMMER_ENGINE_TEXT_SINK_H_

#include <absl/status/status.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/models/generation.h"
#include "engine/sampling/stop_matcher.h"
#include "engine/text/token_stream.h"

namespace dimmer {

class TextSink : public TokenSink {
 public:
  using Clock = std::chrono::steady_clock;

  // `tokenizer` null: ids without text. `previous`: the prompt's last token. `on_piece` may be
  // null; what it throws fails the generation.
  TextSink(std::shared_ptr<const Tokenizer> tokenizer, std::optional<int32_t> previous,
           const std::vector<std::string>& stops, std::function<bool(Piece)> on_piece,
           Clock::time_point submitted);

  Verdict OnToken(int32_t id, float logprob) override;
  bool ready() const override { return ready_.load(std::memory_order_acquire); }
  std::chrono::steady_clock::time_point last_read() const override {
    return Clock::time_point(last_read_.load(std::memory_order_relaxed));
  }
  // The reader took something, and is still behind.
  void Touch() { last_read_.store(Clock::now().time_since_epoch(), std::memory_order_relaxed); }
  void Resume() { ready_.store(true, std::memory_order_release); }

  // The text is over: hands out what was held back, and fills in the result's text, ids,
  // log-probabilities and times. An error is on_piece's.
  absl::Status Finish(Result& result);

 private:
  // A token whose text was not handed out yet.
  struct Held {
    int32_t id;
    float logprob;
    size_t end;  // of its text, bytes from the start; kUnknown inside a character
  };

  void Release(const std::string& text);
  void Emit(Piece piece);

  const std::shared_ptr<const Tokenizer> tokenizer_;
  std::optional<TokenStream> stream_;  // without a tokenizer, none
  StopMatcher matcher_;
  const std::function<bool(Piece)> on_piece_;
  const Clock::time_point submitted_;
  std::atomic<bool> ready_ = true;
  std::atomic<Clock::duration> last_read_ = Clock::duration::min();
  absl::Status failure_;

  std::vector<Held> held_;
  size_t streamed_ = 0;  // bytes of text that the tokens gave
  std::string text_;     // handed out
  std::vector<int32_t> ids_;
  std::vector<float> logprobs_;
  Clock::time_point first_token_, last_token_;
};

}  // namespace dimmer

#endif  // DIMMER_ENGINE_TEXT_SINK_H_
