// The one parallel loop of the CPU kernels: fixed chunks of voxels, so that sums taken per chunk
// and then in chunk order have the same bits whatever the number of threads.
#pragma once

#include <algorithm>

#include "common/checks.h"
#include "cpu/common/tile.h"

namespace ichfast {

constexpr int64_t kChunk = 16 * kTile;
constexpr int64_t kGrain = 2 * kChunk;  // voxels that are worth waking a thread for

struct Chunks {
  int64_t rows, voxels;  // a row is one image, or one (image, channel)

  int64_t per_row() const { return (voxels + kChunk - 1) / kChunk; }
  int64_t count() const { return rows * per_row(); }

  // Calls tile(row, first, n, chunk) for each tile; those of a chunk in order, on one thread.
  template <class F>
  void for_each_tile(const F& tile) const {
    const int64_t grain = kGrain / std::clamp<int64_t>(voxels, 1, kChunk);
    torch::stable::parallel_for(0, count(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t row = chunk / per_row();
        const int64_t start = chunk % per_row() * kChunk;
        const int64_t stop = std::min(start + kChunk, voxels);
        for (int64_t first = start; first < stop; first += kTile)
          tile(row, first, std::min(kTile, stop - first), chunk);
      }
    });
  }
};

// Sums (count, K) per-chunk values over the chunks of each row, in order, into (rows, K) sums.
template <class A>
void sum_chunks(const Chunks& chunks, const double* partial, int64_t k, A* sums) {
  for (int64_t row = 0; row < chunks.rows; ++row) {
    for (int64_t j = 0; j < k; ++j) {
      double total = 0;
      for (int64_t c = 0; c < chunks.per_row(); ++c)
        total += partial[(row * chunks.per_row() + c) * k + j];
      sums[row * k + j] = A(total);
    }
  }
}

// Sums are kept in float64: half of a large image's voxels is past float32's 24 bits.
inline Tensor zeros(const Tensor& like, std::initializer_list<int64_t> size) {
  Tensor result = torch::stable::new_empty(like, size, ScalarType::Double);
  return torch::stable::zero_(result);
}

}  // namespace ichfast
