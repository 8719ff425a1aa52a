// `dimmerctl models` and `dimmerctl describe`.
#include <fmt/format.h>

#include "engine/util/status.h"
#include "server/ctl/commands.h"
#include "server/ctl/connection.h"
#include "server/ctl/json.h"
#include "server/ctl/model_view.h"
#include "server/ctl/terminal.h"

namespace dimmer::ctl {

absl::Status RunModels(const Options& options) {
  grpc::ClientContext context;
  SetDeadline(options, &context);
  v1::ListModelsResponse list;
  DIMMER_RETURN_IF_ERROR(
      Explain(ConnectAdmin(options)->ListModels(&context, {}, &list), options, Port::kAdmin));
  if (options.json) {
    fmt::print("{}", Dump(ToJson(list)));
  } else {
    const Terminal terminal = LookAtTerminal(options.color);
    // A file has no edge to cut at.
    const size_t columns = terminal.live ? terminal.columns : SIZE_MAX;
    fmt::print("{}", Paint(RenderModels(list, columns), terminal.color));
  }
  return absl::OkStatus();
}

absl::Status RunDescribe(const Options& options) {
  DIMMER_ASSIGN_OR_RETURN(const v1::Model model, GetModel(options, *ConnectAdmin(options)));
  if (options.json) {
    fmt::print("{}", Dump(ToJson(model)));
  } else {
    const Terminal terminal = LookAtTerminal(options.color);
    fmt::print("{}", Paint(RenderModel(model, terminal.columns, terminal.unicode), terminal.color));
  }
  return absl::OkStatus();
}

}  // namespace dimmer::ctl
