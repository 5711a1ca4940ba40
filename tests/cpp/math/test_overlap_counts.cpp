// What a voxel counts as.
#include <limits>

#include "check.h"
#include "math/overlap_counts.h"

namespace {

using namespace ichfast;

constexpr float kQuietNaNf = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinityf = std::numeric_limits<float>::infinity();

void test_overlap_counts() {
  using namespace overlap_counts;
  const auto counted = [](float p, float t, int32_t tp, int32_t fp, int32_t fn, int32_t nan) {
    int32_t counts[kCounts] = {};
    count(p, t, 0.5f, counts);
    return counts[kTP] == tp && counts[kFP] == fp && counts[kFN] == fn && counts[kNaN] == nan;
  };
  CHECK(counted(0.6f, 1, 1, 0, 0, 0));
  CHECK(counted(0.6f, 0, 0, 1, 0, 0));
  CHECK(counted(0.5f, 0.1f, 0, 0, 1, 0));  // exceeds, not reaches; any target above 0
  CHECK(counted(0.5f, 0, 0, 0, 0, 0));
  CHECK(counted(kInfinityf, -1, 0, 1, 0, 0));
  CHECK(counted(kQuietNaNf, 0, 0, 0, 0, 1) && counted(0, kQuietNaNf, 0, 0, 0, 1));
}

}  // namespace

int main() {
  test_overlap_counts();
  return finish();
}
