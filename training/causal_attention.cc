#include "training/causal_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "training/kernels-inl.h"

namespace dimmer {
namespace {

constexpr int64_t kTile = 16;     // queries at a time
constexpr int64_t kColumns = 32;  // of one register tile; head widths and lengths are padded to it
constexpr int64_t kRows = 4;      // of one register tile
constexpr int64_t kLanes = 16;

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef float LooseVector
    __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

int64_t Padded(int64_t n) { return (n + kColumns - 1) / kColumns * kColumns; }

// c [4, 32] (+)= sum over i of a[r * a_row + i * a_step] * b[i * b_row + column].
DIMMER_INLINE void TileProduct(const float* a, int64_t a_row, int64_t a_step, const float* b,
                               int64_t b_row, int64_t terms, bool accumulate, float* c,
                               int64_t c_row) {
  Vector sum[kRows][2];
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < 2; ++v) {
      if (accumulate) {
        sum[r][v] = *reinterpret_cast<const LooseVector*>(c + r * c_row + v * kLanes);
      } else {
        sum[r][v] = Vector{};
      }
    }
  }
  for (int64_t i = 0; i < terms; ++i) {
    const Vector left = *reinterpret_cast<const LooseVector*>(b + i * b_row);
    const Vector right = *reinterpret_cast<const LooseVector*>(b + i * b_row + kLanes);
#pragma GCC unroll 4
    for (int64_t r = 0; r < kRows; ++r) {
      const float factor = a[r * a_row + i * a_step];
      sum[r][0] += left * factor;
      sum[r][1] += right * factor;
    }
  }
#pragma GCC unroll 4
  for (int64_t r = 0; r < kRows; ++r) {
    *reinterpret_cast<LooseVector*>(c + r * c_row) = sum[r][0];
    *reinterpret_cast<LooseVector*>(c + r * c_row + kLanes) = sum[r][1];
  }
}

// c [rows, columns] (+)= A B; rows and columns are multiples of the tile.
DIMMER_INLINE void Product(const float* a, int64_t a_row, int64_t a_step, const float* b,
                           int64_t b_row, int64_t rows, int64_t terms, int64_t columns,
                           bool accumulate, float* c, int64_t c_row) {
  for (int64_t j = 0; j < columns; j += kColumns) {
    for (int64_t r = 0; r < rows; r += kRows) {
      TileProduct(a + r * a_row, a_row, a_step, b + j, b_row, terms, accumulate, c + r * c_row + j,
                  c_row);
    }
  }
}

// One head of one sequence, copied out and padded with zeros; and the room that its tiles need.
struct Head {
  int64_t length = 0, width = 0;  // real
  int64_t padded_length = 0, padded_width = 0;
  std::vector<float> q, k, v, dout;          // [padded length, padded width]
  std::vector<float> k_across, v_across;     // [padded width, padded length]
  std::vector<float> out, dq, dk, dv;        // [padded length, padded width]
  std::vector<float> scores, dscores, mask;  // [tile, padded length]

  void Resize(int64_t sequence_length, int64_t head_width, bool backward) {
    length = sequence_length;
    width = head_width;
    padded_length = Padded(length);
    padded_width = Padded(width);
    const size_t matrix = padded_length * padded_width;
    for (auto* values : {&q, &k, &v, &k_across, &out}) values->assign(matrix, 0.0F);
    scores.assign(kTile * padded_length, 0.0F);
    mask.assign(padded_length, 1.0F);
    if (!backward) return;
    for (auto* values : {&v_across, &dout, &dq, &dk, &dv}) values->assign(matrix, 0.0F);
    dscores.assign(kTile * padded_length, 0.0F);
  }
};

DIMMER_INLINE void CopyIn(const float* from, int64_t stride, const Head& head, float* to) {
  for (int64_t i = 0; i < head.length; ++i) {
    for (int64_t d = 0; d < head.width; ++d) to[i * head.padded_width + d] = from[i * stride + d];
  }
}

DIMMER_INLINE void CopyOut(const float* from, const Head& head, int64_t stride, float* to) {
  for (int64_t i = 0; i < head.length; ++i) {
    for (int64_t d = 0; d < head.width; ++d) to[i * stride + d] = from[i * head.padded_width + d];
  }
}

DIMMER_INLINE void Across(const float* rows, const Head& head, float* to) {
  for (int64_t d = 0; d < head.width; ++d) {
    for (int64_t i = 0; i < head.length; ++i) {
      to[d * head.padded_length + i] = rows[i * head.padded_width + d];
    }
  }
}

// Factors of the keys that query i sees.
DIMMER_INLINE void RowMask(const MaskParameters& mask, uint32_t first, int64_t i, Head& head) {
  if (mask.threshold == 0) return;  // stays 1
  FillMask(first + static_cast<uint32_t>(i * head.length), mask.low, mask.high, mask.threshold,
           mask.keep, i + 1, head.mask.data());
}

DIMMER_INLINE void ForwardHead(const MaskParameters& mask, uint32_t first, Head& head,
                               float* log_sums) {
  const int64_t w = head.padded_width;
  const float scale = 1 / std::sqrt(static_cast<float>(head.width));
  for (int64_t begin = 0; begin < head.length; begin += kTile) {
    const int64_t keys = std::min(Padded(begin + kTile), head.padded_length);
    Product(head.q.data() + begin * w, w, 1, head.k_across.data(), head.padded_length, kTile,
            head.width, keys, false, head.scores.data(), head.padded_length);
    for (int64_t r = 0; r < kTile; ++r) {
      float* row = head.scores.data() + r * head.padded_length;
      const int64_t i = begin + r;
      const int64_t seen = i < head.length ? i + 1 : 0;
      float top = seen > 0 ? row[0] : 0;
#pragma omp simd reduction(max : top)
      for (int64_t j = 0; j < seen; ++j) top = row[j] > top ? row[j] : top;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < seen; ++j) {
        row[j] = ExpOfNegative((row[j] - top) * scale);
        sum += row[j];
      }
      for (int64_t j = seen; j < keys; ++j) row[j] = 0;
      if (seen == 0) continue;
      log_sums[i] = top * scale + std::log(sum);
      RowMask(mask, first, i, head);
      const float inverse = 1 / sum;
      for (int64_t j = 0; j < seen; ++j) row[j] *= inverse * head.mask[j];
    }
    Product(head.scores.data(), head.padded_length, 1, head.v.data(), w, kTile, keys, w, false,
            head.out.data() + begin * w, w);
  }
}

// Leaves the probabilities after dropout in `scores` and the gradient by the scores in `dscores`.
DIMMER_INLINE void BackwardRows(const MaskParameters& mask, uint32_t first, int64_t begin,
                                int64_t keys, float scale, const float* log_sums, Head& head) {
  const int64_t w = head.padded_width;
  for (int64_t r = 0; r < kTile; ++r) {
    float* row = head.scores.data() + r * head.padded_length;
    float* gradient = head.dscores.data() + r * head.padded_length;
    const int64_t i = begin + r;
    const int64_t seen = i < head.length ? i + 1 : 0;
    if (seen > 0) {
      RowMask(mask, first, i, head);
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t d = 0; d < w; ++d) dot += head.dout[i * w + d] * head.out[i * w + d];
      const float log_sum = log_sums[i];
      const float* factors = head.mask.data();
#pragma omp simd
      for (int64_t j = 0; j < seen; ++j) {
        const float exponent = row[j] * scale - log_sum;
        const float p = ExpOfNegative(exponent < 0 ? exponent : 0);
        gradient[j] = p * (factors[j] * gradient[j] - dot) * scale;
        row[j] = p * factors[j];
      }
    }
    for (int64_t j = seen; j < keys; ++j) row[j] = gradient[j] = 0;
  }
}

DIMMER_INLINE void BackwardHead(const MaskParameters& mask, uint32_t first, Head& head,
                                const float* log_sums) {
  const int64_t w = head.padded_width;
  const int64_t stride = head.padded_length;
  const float scale = 1 / std::sqrt(static_cast<float>(head.width));
  for (int64_t begin = 0; begin < head.length; begin += kTile) {
    const int64_t keys = std::min(Padded(begin + kTile), head.padded_length);
    const float* query = head.q.data() + begin * w;
    const float* dout = head.dout.data() + begin * w;
    Product(query, w, 1, head.k_across.data(), stride, kTile, head.width, keys, false,
            head.scores.data(), stride);
    Product(dout, w, 1, head.v_across.data(), stride, kTile, head.width, keys, false,
            head.dscores.data(), stride);
    BackwardRows(mask, first, begin, keys, scale, log_sums, head);
    Product(head.dscores.data(), stride, 1, head.k.data(), w, kTile, keys, w, false,
            head.dq.data() + begin * w, w);
    Product(head.dscores.data(), 1, stride, query, w, keys, kTile, w, true, head.dk.data(), w);
    Product(head.scores.data(), 1, stride, dout, w, keys, kTile, w, true, head.dv.data(), w);
  }
}

// Calls visit(first row, first column, length, first mask index, first log sum) for every head.
template <typename Visit>
DIMMER_INLINE void ForEachHead(const AttentionShape& shape, const Visit& visit) {
  const int64_t head_width = shape.width / shape.heads;
  const int64_t tokens = shape.offsets.back();
  int64_t first = 0;
  for (size_t s = 0; s + 1 < shape.offsets.size(); ++s) {
    const int64_t begin = shape.offsets[s];
    const int64_t length = shape.offsets[s + 1] - begin;
    for (int64_t h = 0; h < shape.heads; ++h) {
      visit(begin, h * head_width, length, static_cast<uint32_t>(first), h * tokens + begin);
      first += length * length;
    }
  }
}

}  // namespace

DIMMER_MULTIVERSION
void CausalAttentionForward(const AttentionShape& shape, const Dropout& dropout, const float* qkv,
                            float* out, float* log_sums) {
  const MaskParameters mask(dropout);
  const int64_t d = shape.width;
  Head head;
  ForEachHead(
      shape, [&](int64_t row, int64_t column, int64_t length, uint32_t first, int64_t sum)
                 __attribute__((always_inline)) {
                   head.Resize(length, d / shape.heads, false);
                   const float* at = qkv + row * 3 * d + column;
                   CopyIn(at, 3 * d, head, head.q.data());
                   CopyIn(at + d, 3 * d, head, head.k.data());
                   CopyIn(at + 2 * d, 3 * d, head, head.v.data());
                   Across(head.k.data(), head, head.k_across.data());
                   ForwardHead(mask, first, head, log_sums + sum);
                   CopyOut(head.out.data(), head, d, out + row * d + column);
                 });
}

DIMMER_MULTIVERSION
void CausalAttentionBackward(const AttentionShape& shape, const Dropout& dropout, const float* qkv,
                             const float* out, const float* log_sums, const float* dout,
                             float* dqkv) {
  const MaskParameters mask(dropout);
  const int64_t d = shape.width;
  Head head;
  ForEachHead(
      shape, [&](int64_t row, int64_t column, int64_t length, uint32_t first, int64_t sum)
                 __attribute__((always_inline)) {
                   head.Resize(length, d / shape.heads, true);
                   const float* at = qkv + row * 3 * d + column;
                   CopyIn(at, 3 * d, head, head.q.data());
                   CopyIn(at + d, 3 * d, head, head.k.data());
                   CopyIn(at + 2 * d, 3 * d, head, head.v.data());
                   CopyIn(out + row * d + column, d, head, head.out.data());
                   CopyIn(dout + row * d + column, d, head, head.dout.data());
                   Across(head.k.data(), head, head.k_across.data());
                   Across(head.v.data(), head, head.v_across.data());
                   BackwardHead(mask, first, head, log_sums + sum);
                   float* to = dqkv + row * 3 * d + column;
                   CopyOut(head.dq.data(), head, 3 * d, to);
                   CopyOut(head.dk.data(), head, 3 * d, to + d);
                   CopyOut(head.dv.data(), head, 3 * d, to + 2 * d);
                 });
}

}  // namespace dimmer
