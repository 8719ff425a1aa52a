#include "server/task_model.h"

#include <algorithm>
#include <vector>

#include "engine/util/status.h"
#include "server/convert.h"

namespace dimmer {

absl::StatusOr<std::shared_ptr<const ServedModel>> FindForTask(const Engine& engine,
                                                               const std::string& model,
                                                               const std::string& version,
                                                               Task task, RpcCall* call) {
  DIMMER_ASSIGN_OR_RETURN(auto served, engine.Find(model, version));
  call->SetModel(served->name, served->version);
  const std::vector<Task>& tasks = served->model->info().tasks;
  if (std::find(tasks.begin(), tasks.end(), task) == tasks.end()) {
    std::string does;
    for (Task each : tasks) does += fmt::format("{}{}", does.empty() ? "" : ", ", TaskName(each));
    return absl::InvalidArgumentError(
        fmt::format("model: {} does {}, found a call for {}", served->name, does, TaskName(task)));
  }
  return served;
}

absl::Status CheckCount(const std::string& field, size_t count, size_t max_texts) {
  if (count >= 1 && count <= max_texts) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{}: found {}, expected 1 to {} in one call (--max-texts)", field, count, max_texts));
}

}  // namespace dimmer
