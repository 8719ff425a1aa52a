#include "training/sparsity.h"

namespace dimmer {

std::string PenaltyName(Penalty penalty) { return penalty == Penalty::kL1 ? "l1" : "hoyer"; }

std::string PenaltyTitle(Penalty penalty) {
  return penalty == Penalty::kL1 ? "L1" : "square Hoyer";
}

Penalty PenaltyOf(const nlohmann::json& epoch) {
  return epoch.contains(PenaltyName(Penalty::kL1)) ? Penalty::kL1 : Penalty::kSquareHoyer;
}

}  // namespace dimmer
