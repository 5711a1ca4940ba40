// The one parallel loop of the CPU kernels: fixed chunks of voxels, so that sums taken per chunk
// and then in chunk order have the same bits whatever the number of threads.
#pragma once

#include <algorithm>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cpu/common/tile.h"

namespace ichfast {

constexpr int64_t kChunk = 16 * kTile;
constexpr int64_t kGrain = 2 * kChunk;  // voxels that are worth waking a thread for

// The rows of a (B, C, *spatial) tensor, a row being one (image, channel), cut into chunks.
class Chunks {
 public:
  explicit Chunks(const Tensor& tensor)
      : channels_(tensor.size(1)), rows_(tensor.size(0) * channels_), voxels_(voxels(tensor)) {}

  int64_t rows() const { return rows_; }
  int64_t per_row() const { return (voxels_ + kChunk - 1) / kChunk; }
  int64_t count() const { return rows_ * per_row(); }

  // Calls body(Tile) for each tile; those of a chunk in order, on one thread.
  template <class F>
  void for_each_tile(const F& body) const {
    const int64_t grain = kGrain / std::clamp<int64_t>(voxels_, 1, kChunk);
    torch::stable::parallel_for(0, count(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t row = chunk / per_row();
        const int64_t start = chunk % per_row() * kChunk;
        const int64_t stop = std::min(start + kChunk, voxels_);
        for (int64_t first = start; first < stop; first += kTile)
          body(Tile{row / channels_, row % channels_, row, chunk, first,
                    std::min(kTile, stop - first)});
      }
    });
  }

 private:
  int64_t channels_, rows_, voxels_;
};

// Adds up what sum_tile(Tile) gives, an array of K numbers, over the tiles of each row and over
// the rows of each group, to which row r % groups belongs: (groups, K) sums. Sum is float64, since
// half of a large image's voxels is past float32's 24 bits, or int64.
template <class Sum, class F>
void sum_rows(const Chunks& chunks, int64_t groups, Sum* sums, const F& sum_tile) {
  constexpr size_t K = std::tuple_size_v<std::invoke_result_t<F, const Tile&>>;
  std::vector<Sum> of_chunk(chunks.count() * K);
  chunks.for_each_tile([&](const Tile& tile) {
    const auto of_tile = sum_tile(tile);
    for (size_t j = 0; j < K; ++j) of_chunk[tile.chunk * K + j] += of_tile[j];
  });
  std::fill_n(sums, groups * K, Sum(0));
  for (int64_t row = 0; row < chunks.rows(); ++row) {
    const int64_t first = row * chunks.per_row(), last = first + chunks.per_row();
    for (size_t j = 0; j < K; ++j) {
      Sum of_row = 0;
      for (int64_t chunk = first; chunk < last; ++chunk) of_row += of_chunk[chunk * K + j];
      sums[row % groups * K + j] += of_row;
    }
  }
}

}  // namespace ichfast
