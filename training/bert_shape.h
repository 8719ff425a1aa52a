// The sizes of a BERT classifier, and the tensors that they imply.
#ifndef DIMMER_TRAINING_BERT_SHAPE_H_
#define DIMMER_TRAINING_BERT_SHAPE_H_

#include <cstdint>
#include <vector>

#include "training/layout.h"

namespace dimmer {

struct BertShape {
  int64_t width = 0;  // d
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t hidden = 0;  // d_ff
  int64_t vocab = 0;
  int64_t positions = 0;
  int64_t types = 0;
  int64_t classes = 0;
  double norm_epsilon = 1e-12;
  double dropout = 0.1;             // of embeddings and blocks' outputs
  double attention_dropout = 0.1;   // of attention probabilities
  double classifier_dropout = 0.1;  // of the pooled output
};

// Every tensor of a BertForSequenceClassification checkpoint, in a fixed order.
std::vector<NamedShape> BertTensors(const BertShape& shape);

ModelLayout LayoutOf(const BertShape& shape);

}  // namespace dimmer

#endif  // DIMMER_TRAINING_BERT_SHAPE_H_
