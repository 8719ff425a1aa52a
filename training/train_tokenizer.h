// dimmer-convert tokenizer: files of text in, the files of a byte-level BPE out.
#ifndef DIMMER_TRAINING_TRAIN_TOKENIZER_H_
#define DIMMER_TRAINING_TRAIN_TOKENIZER_H_

#include <absl/status/status.h>

#include <cstdint>
#include <string>
#include <vector>

#include "training/progress.h"

namespace dimmer {

struct TrainTokenizerOptions {
  std::vector<std::string> data;  // text files; "<|endoftext|>" ends a text
  uint64_t vocab_size = 2048;
  uint64_t min_count = 2;  // a pair that is rarer becomes no token
  std::string to;          // a new or empty folder
};

// NotFound, InvalidArgument: a data file can't be read or is not UTF-8 (names file and offset); the
// errors of TrainBpe() and WriteNewFolder().
absl::Status TrainTokenizer(const TrainTokenizerOptions& options, Progress& progress);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_TRAIN_TOKENIZER_H_
