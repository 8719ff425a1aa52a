// The rows that training goes through, epoch by epoch.
#ifndef DIMMER_TRAINING_TRAINING_DATA_H_
#define DIMMER_TRAINING_TRAINING_DATA_H_

#include <cstdint>
#include <span>

#include "training/batch.h"

namespace dimmer {

// Thread safety: one caller at a time.
class TrainingData {
 public:
  virtual ~TrainingData() = default;
  // The same in every epoch; at least 1.
  virtual uint64_t rows() const = 0;
  // The rows of an epoch (from 0), a function of its number alone; valid until the next call.
  virtual std::span<const Example> Epoch(uint64_t epoch) = 0;
};

// The same rows in every epoch. The rows are not owned.
class FixedRows : public TrainingData {
 public:
  explicit FixedRows(std::span<const Example> examples) : examples_(examples) {}
  uint64_t rows() const override { return examples_.size(); }
  std::span<const Example> Epoch(uint64_t) override { return examples_; }

 private:
  std::span<const Example> examples_;
};

}  // namespace dimmer

#endif  // DIMMER_TRAINING_TRAINING_DATA_H_
