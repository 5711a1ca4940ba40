// The math of overlap_counts, voxel by voxel; its kernels against it, to the last voxel.
#include <limits>

#include "kernels/overlap_counts.cuh"
#include "tensors.h"

namespace {

using namespace ichfast;
using namespace ichfast::overlap_counts;

int cases = 0;

template <class A, class P, class T, class KP, class KT>
void run(int64_t n, Layout layout, bool spoil = false) {
  ++cases;
  const int64_t images = 2, channels = 2, rows = images * channels;
  const double threshold = 0.5;
  Random random(uint64_t(n) + 11);
  Doubles ps = random.several(rows * n, 0, 1), ts = random.several(rows * n, -1, 1);
  for (int64_t i = 0; i < rows * n; i += 7) ps[i] = threshold;  // exceeds, not reaches
  for (double& t : ts) t = t > 0;
  if (spoil) ps[n + n / 2] = std::numeric_limits<double>::quiet_NaN();
  const TestTensor<P> p(images, channels, n, layout, ps);
  const TestTensor<T> t(images, channels, n, layout, ts);
  ps = p.values();
  ts = t.values();
  std::vector<int64_t> expected;
  for (int64_t row = 0; row < rows; ++row) {
    int32_t counts[kCounts] = {};
    for (int64_t i = row * n; i < (row + 1) * n; ++i) count(ps[i], ts[i], threshold, counts);
    for (int j = 0; j < kNaN; ++j) expected.push_back(counts[kNaN] ? -1 : counts[j]);
  }
  const Launch launch;
  const TestArray<int64_t> slots(overlap_counts::slots<KP, KT, Launch>(rows, n));
  const TestArray<int64_t> result(rows * kNaN);
  forward<A>(launch, p.template input<KP>(), t.template input<KT>(), threshold, images, channels, n,
             slots.data(), result.data());
  CHECK(result.values() == expected);
}

template <class A, class P, class T, class KP = P, class KT = T>
void test() {
  for (const int64_t n : sizes()) {
    run<A, P, T, KP, KT>(n, Layout::kContiguous);
    if (n < 257) continue;
    for (const Layout layout : kLayouts) run<A, P, T, KP, KT>(n, layout);
    run<A, P, T, KP, KT>(n, Layout::kContiguous, true);
  }
}

void test_wide() {
  const int64_t n = 2 * Chunking<4, Launch::kThreads>::kVoxels + 7;
  CHECK(moves_wide([&] { run<float, float, float, float, float>(n, Layout::kContiguous); }));
}

constexpr float kQuietNaNf = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinityf = std::numeric_limits<float>::infinity();

void test_math() {
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
  test_math();
  test<float, float, Bool>();
  test<float, BFloat16, uint8_t>();
  test<float, Half, float>();
  test<float, Half, BFloat16, Floating, Target>();
  test<double, double, uint8_t, Floating, Target>();
  test_wide();
  return finish("overlap_counts", cases);
}
