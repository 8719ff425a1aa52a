// The families that this engine serves, by the architecture's name in config.json.
#include <map>
#include <string>

#include "engine/models/bert.h"
#include "engine/models/gpt2.h"
#include "engine/models/llama.h"
#include "engine/models/model.h"
#include "engine/util/status.h"

namespace dimmer {
namespace {

using Loader = absl::StatusOr<std::unique_ptr<Model>> (*)(const Package&);

const std::map<std::string, Loader>& Loaders() {
  static const auto* const kLoaders = new std::map<std::string, Loader>{
      {"BertForSequenceClassification", &Bert::Load},
      {"BertModel", &Bert::Load},
      {"GPT2LMHeadModel", &Gpt2::Load},
      {"LlamaForCausalLM", &Llama::Load},
  };
  return *kLoaders;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const Package& package) {
  const auto found = Loaders().find(package.architecture);
  if (found != Loaders().end()) return found->second(package);
  std::string known;
  for (const auto& [name, loader] : Loaders()) known += (known.empty() ? "" : ", ") + name;
  return absl::UnimplementedError(
      fmt::format("{}/config.json: architectures: found \"{}\", expected one of {}",
                  package.directory, package.architecture, known));
}

}  // namespace dimmer
