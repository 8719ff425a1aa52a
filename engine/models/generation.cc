#include "engine/models/generation.h"

namespace dimmer {

std::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kEndOfText:
      return "end_of_text";
    case FinishReason::kBudget:
      return "budget";
  }
  return "unknown";
}

}  // namespace dimmer
