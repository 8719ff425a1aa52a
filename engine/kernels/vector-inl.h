// The vectors of a panel, per Highway target.

#if defined(DIMMER_ENGINE_KERNELS_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DIMMER_ENGINE_KERNELS_VECTOR_INL_H_
#undef DIMMER_ENGINE_KERNELS_VECTOR_INL_H_
#else
#define DIMMER_ENGINE_KERNELS_VECTOR_INL_H_
#endif

#include <cstddef>

#include "engine/kernels/packed_matrix.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace dimmer::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, kPanel>;
using FloatVec = hn::Vec<FloatTag>;

constexpr size_t kLanes = hn::MaxLanes(FloatTag());
constexpr int kVecs = static_cast<int>(kPanel / kLanes);  // vectors per panel

}  // namespace dimmer::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
