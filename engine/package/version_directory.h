// For tools that take a model by its path.
#ifndef DIMMER_ENGINE_PACKAGE_VERSION_DIRECTORY_H_
#define DIMMER_ENGINE_PACKAGE_VERSION_DIRECTORY_H_

#include <string>

namespace dimmer {

// `path` itself if it is a checkpoint (it has config.json), else its subfolder of the highest
// number; `path` where there is none.
std::string VersionDirectory(const std::string& path);

}  // namespace dimmer

#endif  // DIMMER_ENGINE_PACKAGE_VERSION_DIRECTORY_H_
