// `dimmerctl set-tau`.
#include <fmt/format.h>

#include "engine/util/status.h"
#include "server/ctl/commands.h"
#include "server/ctl/connection.h"
#include "server/ctl/tau_view.h"
#include "server/ctl/terminal.h"

namespace dimmer::ctl {

absl::Status RunSetTau(const Options& options) {
  const auto stub = ConnectAdmin(options);
  TauDifference difference{.model = options.model, .dry_run = options.set_tau.dry_run()};
  DIMMER_ASSIGN_OR_RETURN(const v1::Model model, GetModel(options, *stub));
  difference.before = model.settings();
  difference.predicted_before = Predict(model.calibration(), difference.before.default_tau());
  grpc::ClientContext context;
  SetDeadline(options, &context);
  v1::SetTauResponse answer;
  DIMMER_RETURN_IF_ERROR(
      Explain(stub->SetTau(&context, options.set_tau, &answer), options, Port::kAdmin));
  difference.after = answer.settings();
  if (answer.has_predicted()) difference.predicted_after = answer.predicted();
  if (options.json) {
    fmt::print("{}", Dump(ToJson(difference)));
  } else {
    fmt::print("{}", Paint(RenderTau(difference), LookAtTerminal(options.color).color));
  }
  return absl::OkStatus();
}

}  // namespace dimmer::ctl
