// Strong views: a block makes a tile of an image, blurred in shared memory. See
// math/strong_view.h.
#pragma once

#include "kernels/common/chunks.h"
#include "math/strong_view.h"

namespace ichfast::strong_view {

// Pixels of a tile. Where the blur reaches farthest, 2.7 are read for each that is made, nearly all
// of them from the cache; and 16 KiB of shared memory (33 for double) leave room for as many blocks
// as the registers do.
constexpr int kTileRows = 16, kTileColumns = 64;
constexpr int kPaddedRows = kTileRows + 2 * kMostReach;
constexpr int kPaddedColumns = kTileColumns + 2 * kMostReach;

struct Shape {
  int64_t batch, height, width;

  ICHFAST_HD int64_t down() const { return (height + kTileRows - 1) / kTileRows; }
  ICHFAST_HD int64_t across() const { return (width + kTileColumns - 1) / kTileColumns; }
};

// The numbers of the images.
struct Numbers {
  Input<Floating> gamma, blur, noise;
  const int64_t* seed;
  int64_t seed_stride;
};

ICHFAST_DEVICE int64_t clamp(int64_t i, int64_t n) {
  return i < 0 ? 0 : i < n ? i : n - 1;
}

// Σ_d w_d x_d of the pixels that are `step` apart.
template <class A>
ICHFAST_DEVICE A blur(const A* at, int step, const A* weights, int reach) {
  A sum = weights[0] * *at;
#pragma unroll 1  // more of it spills registers
  for (int d = 1; d <= reach; ++d) sum += weights[d] * (at[-d * step] + at[d * step]);
  return sum;
}

template <class A>
ICHFAST_DEVICE A finish(A x, A z, const View<A>& view) {
  if (view.gamma != A(1)) x = pixel<true, false>(x, z, view);
  if (view.noise != A(0)) x = pixel<false, true>(x, z, view);
  return x;
}

// 16-byte accesses: stores, since the rows of a padded tile begin anywhere.
template <class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<A, kThreads>)
    paint(Input<T> image, Numbers numbers, Shape shape, T* result) {
  constexpr int kPixels = kVoxelsOf<T>;  // of a thread, neighbours in a row
  __shared__ A padded[kPaddedRows * kPaddedColumns];
  __shared__ A lines[kTileRows * kPaddedColumns];  // blurred downwards
  __shared__ A weights[kMostReach + 1];
  const int64_t tiles = shape.down() * shape.across();
  const int64_t b = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int64_t top = tile / shape.across() * kTileRows;
  const int64_t left = tile % shape.across() * kTileColumns;
  const double gamma = number<double>(numbers.gamma, b), noise = number<double>(numbers.noise, b);
  const double given = number<double>(numbers.blur, b);
  const bool is_valid = valid(gamma, given, noise);  // nobody can look before
  const double sigma = is_valid ? given : 0;
  const int reach = ichfast::reach(sigma);
  if (threadIdx.x <= unsigned(reach))
    weights[threadIdx.x] = A(relative_weight(int(threadIdx.x), sigma) / sum_of_weights(sigma));
  const Row pixels(image, b, 0);
  for (int k = threadIdx.x; k < kPaddedRows * kPaddedColumns; k += kThreads) {
    const int row = k / kPaddedColumns, column = k % kPaddedColumns;
    if (row >= kTileRows + 2 * reach || column >= kTileColumns + 2 * reach) continue;
    const int64_t at = clamp(top + row - reach, shape.height) * shape.width +
                       clamp(left + column - reach, shape.width);
    padded[k] = to_unit(pixels.template get<A>(Step<Access::kScalar, 1>{at})[0]);
  }
  __syncthreads();
  for (int k = threadIdx.x; k < kTileRows * kPaddedColumns; k += kThreads) {
    if (k % kPaddedColumns >= kTileColumns + 2 * reach) continue;
    lines[k] = blur(padded + k + reach * kPaddedColumns, kPaddedColumns, weights, reach);
  }
  __syncthreads();
  const View<A> view = strong_view::view<A>(gamma, noise, numbers.seed[b * numbers.seed_stride]);
  for (int k = threadIdx.x; k < kTileRows * kTileColumns / kPixels; k += kThreads) {
    const int row = k / (kTileColumns / kPixels), column = k % (kTileColumns / kPixels) * kPixels;
    const int64_t i = top + row, j = left + column;
    if (i >= shape.height || j >= shape.width) continue;
    const A* const line = lines + row * kPaddedColumns + column + reach;
    const int64_t first = i * shape.width + j;
    A out[kPixels];
#pragma unroll
    for (int p = 0; p < kPixels; p += 2) {
      const Pair<A> z = view.noise != A(0)
                            ? normal_pair<A>(uint32_t(first + p), view.radial, view.angular)
                            : Pair<A>{};
      out[p] = finish(blur(line + p, 1, weights, reach), z.first, view);
      out[p + 1] = finish(blur(line + p + 1, 1, weights, reach), z.second, view);
    }
#pragma unroll
    for (A& x : out) x = is_valid ? x : A(NAN);
    T* const to = result + b * shape.height * shape.width + first;
    if (shape.width % kPixels == 0) {
      store_vector<kPixels>(to, out);
    } else {
#pragma unroll
      for (int p = 0; p < kPixels; ++p)
        if (j + p < shape.width) store_vector<1>(to + p, out + p);
    }
  }
}

template <class A, class T, class Launch>
void forward(const Launch& launch, Input<T> image, const Numbers& numbers, const Shape& shape,
             T* result) {
  launch(paint<A, T, Launch::kThreads>, shape.batch * shape.down() * shape.across(), image, numbers,
         shape, result);
}

}  // namespace ichfast::strong_view
