// Pasting on the GPU: a block makes a tile of an image, blurring r in shared memory, along the rows
// and then across them. A tile without region in reach, as most are, is copied. See math/paste.h.
#pragma once

#include "kernels/common/chunks.h"
#include "kernels/common/reduce.h"
#include "math/paste.h"

namespace ichfast::paste {

struct Shape {
  int64_t batch, height, width;

  ICHFAST_HD int64_t pixels() const { return height * width; }
};

// Elements of a target by their size: they are moved as they are.
using Word = OneOf<uint8_t, uint16_t, uint32_t, uint64_t>;

// What the target of a pixel is taken from and where it goes; null where there are no targets.
struct Targets {
  Input<Word> target, source;
  Output<Word> out;
};

constexpr int kTileRows = 32, kTileColumns = 64;
constexpr int kPaddedRows = kTileRows + 2 * kLargestReach;
constexpr int kPaddedColumns = kTileColumns + 2 * kLargestReach;

// Tiles of an image along each axis.
ICHFAST_HD int64_t tile_rows(const Shape& shape) {
  return (shape.height + kTileRows - 1) / kTileRows;
}
ICHFAST_HD int64_t tile_columns(const Shape& shape) {
  return (shape.width + kTileColumns - 1) / kTileColumns;
}

// The target of neighbouring pixels, of which `count` ≤ N are in the row: the source's where r
// is 1.
template <int N>
ICHFAST_DEVICE void move_targets(const Targets& targets, int64_t b, int64_t pixel, int count,
                                 const uint8_t* r) {
  targets.target.visit([&](auto* data) {
    using Element = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    using P = Pieces<Element, N>;
    const Element* const target = data + b * targets.target.strides.image + pixel;
    const Element* const source =
        static_cast<const Element*>(targets.source.data) + b * targets.source.strides.image + pixel;
    Element* const out =
        static_cast<Element*>(targets.out.data) + b * targets.out.strides.image + pixel;
    if (count < N || !aligned<N>(target) || !aligned<N>(source) || !aligned<N>(out)) {
      for (int k = 0; k < count; ++k)
        store_word(out + k, load_word<Element>((r[k] ? source : target) + k));
      return;
    }
#pragma unroll
    for (int p = 0; p < N; p += P::kSize) {
      auto word = load_word<typename P::Word>(target + p);
      Element elements[P::kSize], others[P::kSize];
      std::memcpy(elements, &word, sizeof word);
      word = load_word<typename P::Word>(source + p);
      std::memcpy(others, &word, sizeof word);
#pragma unroll
      for (int k = 0; k < P::kSize; ++k) elements[k] = r[p + k] ? others[k] : elements[k];
      std::memcpy(&word, elements, sizeof word);
      store_word(out + p, word);
    }
  });
}

template <class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    paste_tiles(Input<T> image, Input<T> source, Input<uint8_t> region, Targets targets,
                Input<Floating> feather, A low, A high, Shape shape, Output<T> image_out) {
  constexpr int kWidth = kStepWidth<T>;
  const int64_t columns = tile_columns(shape), tiles = tile_rows(shape) * columns;
  const int64_t b = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int64_t top = tile / columns * kTileRows, left = tile % columns * kTileColumns;
  const Row x(image, b, 0), s(source, b, 0);
  const Row inside(region, b, 0);
  const Row out(image_out, b, 0);
  const double sigma = number<double>(feather, b);
  const bool valid = valid_sigma(sigma);  // nobody can look before
  const int reach = valid ? ichfast::reach(sigma) : 0;

  // From here on (i, j) is pixel (top + i − reach, left + j − reach) for r, and pixel
  // (top + i − reach, left + j) for what is blurred along the rows.
  __shared__ uint8_t r[kPaddedRows][kPaddedColumns];
  __shared__ A along[kPaddedRows][kTileColumns], weights[kLargestReach + 1];
  if (valid && threadIdx.x <= unsigned(reach))
    weights[threadIdx.x] = A(relative_weight(int(threadIdx.x), sigma) / sum_of_weights(sigma));
  const int padded_rows = kTileRows + 2 * reach, padded_columns = kTileColumns + 2 * reach;
  int32_t count[1] = {0};
  for (int item = threadIdx.x; item < padded_rows * padded_columns; item += kThreads) {
    const int i = item / padded_columns, j = item % padded_columns;
    const int64_t row = top + i - reach, column = left + j - reach;
    bool is_chosen = false;
    if (valid && row >= 0 && row < shape.height && column >= 0 && column < shape.width) {
      const Step<Access::kScalar, 1> at{row * shape.width + column};
      if (inside.template get<float>(at)[0] != 0)
        is_chosen = chosen(true, x.template get<A>(at)[0], low, high);
    }
    r[i][j] = is_chosen;
    count[0] += is_chosen;
  }
  const bool empty = block_sum<int32_t, kThreads>(count)[0] == 0;
  if (!empty) {
    for (int item = threadIdx.x; item < padded_rows * kTileColumns; item += kThreads) {
      const int i = item / kTileColumns, j = item % kTileColumns;
      A sum = weights[0] * A(r[i][j + reach]);
      for (int k = 1; k <= reach; ++k)
        sum += weights[k] * A(r[i][j + reach - k] + r[i][j + reach + k]);
      along[i][j] = sum;
    }
    __syncthreads();
  }

  constexpr int kPerRow = kTileColumns / kWidth;
  for (int item = threadIdx.x; item < kTileRows * kPerRow; item += kThreads) {
    const int i = item / kPerRow, j = item % kPerRow * kWidth;
    const int64_t row = top + i, column = left + j;
    if (row >= shape.height || column >= shape.width) continue;
    const int64_t left_over = shape.width - column, pixel = row * shape.width + column;
    const int here = left_over < kWidth ? int(left_over) : kWidth;
    const auto paste_step = [&](auto step) {
      constexpr int kCount = decltype(step)::kWidth;
      auto values = x.template get<A>(step);
      if (!empty) {
        const auto others = s.template get<A>(step);
        const int first = j + int(step.voxel - pixel);
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          A a = weights[0] * along[i + reach][first + k];
#pragma unroll 1  // more of it spills registers
          for (int l = 1; l <= reach; ++l)
            a += weights[l] * (along[i + reach - l][first + k] + along[i + reach + l][first + k]);
          values[k] = mix(values[k], others[k], a);
        }
      } else if (!valid) {
#pragma unroll
        for (int k = 0; k < kCount; ++k) values[k] = A(NAN);
      }
      out.put(step, values);
    };
    if (here == kWidth && common_access<kWidth>(pixel, x, s, out) == Access::kVector) {
      paste_step(Step<Access::kVector, kWidth>{pixel});
    } else {
      for (int k = 0; k < here; ++k) paste_step(Step<Access::kScalar, 1>{pixel + k});
    }
    if (targets.target.data != nullptr)
      move_targets<kWidth>(targets, b, pixel, here, &r[i + reach][j + reach]);
  }
}

// `targets` without data: there are none.
template <class A, class T, class Launch>
void forward(const Launch& launch, Input<T> image, Input<T> source, Input<uint8_t> region,
             const Targets& targets, Input<Floating> feather, double low, double high,
             const Shape& shape, Output<T> image_out) {
  launch(paste_tiles<A, T, Launch::kThreads>, shape.batch * tile_rows(shape) * tile_columns(shape),
         image, source, region, targets, feather, A(low), A(high), shape, image_out);
}

}  // namespace ichfast::paste
