// Tiles: runs of voxels as contiguous float or double, whatever the tensor's dtype and stride.
//
// The arithmetic of every CPU kernel is a vectorised loop over tiles. float32 (and float64 where
// that is computed in) with unit stride is used in place; everything else passes through a buffer
// that stays in the first-level cache, so each dtype and layout costs one conversion loop and no
// second version of any kernel.
#pragma once

#include <optional>
#include <vector>

#include "common/layout.h"

namespace ichfast {

constexpr int64_t kTile = 1024;

// n ≤ kTile neighbouring voxels of one (image, channel).
struct Tile {
  int64_t image, channel;
  int64_t row, chunk;  // the (image, channel), and its part (see parallel.h), counted over them all
  int64_t first, n;
};

// n elements from `element` on, `stride` apart, converted to A (float or double). Returns `data`
// itself where no conversion is needed, else `buffer` (room for n).
template <class A>
const A* load(ScalarType dtype, const void* data, int64_t element, int64_t stride, int64_t n,
              A* buffer);

// The inverse: converts n values to `dtype` (a floating one), rounding to nearest even.
template <class A>
void store(ScalarType dtype, void* data, int64_t element, int64_t stride, int64_t n,
           const A* values);

// One number of a small tensor; to convert it all would cost more than to window a slice.
double number_at(const Tensor& tensor, int64_t element);

// Number b of a (B,) tensor, or `otherwise` where there is none.
double number_at(const std::optional<Tensor>& tensor, int64_t b, double otherwise);

// All of a small tensor, in the order of its indices.
std::vector<double> read_numbers(const Tensor& tensor);

// Reads tiles.
template <class A>
class Source {
 public:
  explicit Source(const Tensor& tensor)
      : dtype_(tensor.scalar_type()), data_(tensor.const_data_ptr()), strides_(*fold(tensor)) {}

  const A* read(const Tile& tile, A* buffer) const { return read(tile, tile.channel, buffer); }

  // At the same place in another channel.
  const A* read(const Tile& tile, int64_t channel, A* buffer) const {
    const int64_t element =
        tile.image * strides_.image + channel * strides_.channel + tile.first * strides_.voxel;
    return load(dtype_, data_, element, strides_.voxel, tile.n, buffer);
  }

 private:
  ScalarType dtype_;
  const void* data_;
  Strides strides_;
};

// Writes tiles: compute into place(…), then put(…).
template <class A>
class Sink {
 public:
  explicit Sink(Tensor& tensor)
      : dtype_(tensor.scalar_type()), data_(tensor.mutable_data_ptr()), strides_(*fold(tensor)) {
    direct_ =
        strides_.voxel == 1 && dtype_ == (sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float);
  }

  A* place(const Tile& tile, A* buffer) const { return place(tile, tile.channel, buffer); }
  void put(const Tile& tile, const A* values) const { put(tile, tile.channel, values); }

  A* place(const Tile& tile, int64_t channel, A* buffer) const {
    return direct_ ? static_cast<A*>(data_) + element(tile, channel) : buffer;
  }
  void put(const Tile& tile, int64_t channel, const A* values) const {
    if (!direct_) store(dtype_, data_, element(tile, channel), strides_.voxel, tile.n, values);
  }

 private:
  int64_t element(const Tile& tile, int64_t channel) const {
    return tile.image * strides_.image + channel * strides_.channel + tile.first * strides_.voxel;
  }

  ScalarType dtype_;
  void* data_;
  Strides strides_;
  bool direct_;
};

}  // namespace ichfast
