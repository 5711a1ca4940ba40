// Training batches from a pool: a thread makes neighbouring output pixels, and the four pixels of
// the slice under each come through the cache. See math/pool_batch.h.
#pragma once

#include "kernels/common/chunks.h"
#include "kernels/common/store_windows.h"
#include "math/pool_batch.h"

namespace ichfast::pool_batch {

struct Shape {
  int64_t pool, batch, height, width, windows, out_height, out_width;

  ICHFAST_HD int64_t out_pixels() const { return out_height * out_width; }
};

// What is the same for all pixels of a sample.
struct Sample {
  int64_t index;  // −1 where it is outside the pool: nobody can look before
  Map map;
  float slope, intercept;  // to h
};

// Output pixels of a thread: neighbours in a row, so that their results leave in one access.
constexpr int kPixels = 4;

// 16-byte accesses: stores, since it gathers pixel by pixel.
template <int kThreads>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<float, kThreads>)
    sample(const int16_t* pool, const uint8_t* masks, const int64_t* indices,
           int64_t indices_stride, Input<Number> theta, Input<Number> slopes,
           Input<Number> intercepts, Input<Number> windows, Shape shape,
           ct_window::Function function, Output<Floating> images, uint8_t* masks_out) {
  const int64_t per_row = (shape.out_width + kPixels - 1) / kPixels;
  const int64_t per_image = per_row * shape.out_height;
  const int64_t blocks = (per_image + kThreads - 1) / kThreads;
  const int64_t b = blockIdx.x / blocks;
  __shared__ Sample shared_sample;
  if (threadIdx.x == 0) {
    double matrix[6];
    for (int64_t k = 0; k < 6; ++k)
      matrix[k] = Row(theta, b, k / 3).template get<double>(Step<Access::kScalar, 1>{k % 3})[0];
    const int64_t index = indices[b * indices_stride];
    shared_sample = {index >= 0 && index < shape.pool ? index : -1,
                     map(matrix, shape.height, shape.width, shape.out_height, shape.out_width),
                     float(number_or(slopes, b, 1.0)),
                     float(number_or(intercepts, b, 0.0) + double(ct_window::kOffset))};
  }
  __syncthreads();
  const Sample s = shared_sample;
  const int64_t item = blockIdx.x % blocks * kThreads + threadIdx.x;
  if (item >= per_image) return;
  const int64_t i = item / per_row, j = item % per_row * kPixels;
  const float x_row = row_start(s.map.x_i, i, s.map.x_0), x_step = float(s.map.x_j);
  const float y_row = row_start(s.map.y_i, i, s.map.y_0), y_step = float(s.map.y_j);
  const int64_t pixels = shape.height * shape.width;
  const int32_t height = int32_t(shape.height), width = int32_t(shape.width);
  const int16_t* const slice = pool + (s.index < 0 ? 0 : s.index) * pixels;
  float h[kPixels];
#pragma unroll
  for (int k = 0; k < kPixels; ++k) {
    const Taps x = taps(position(x_step, int32_t(j + k), x_row), width);
    const Taps y = taps(position(y_step, int32_t(j + k), y_row), height);
    const int16_t* const at = slice + (y.first * width + x.first);
    float stored[4];
    load_vector<1>(at, stored);
    load_vector<1>(at + 1, stored + 1);
    load_vector<1>(at + width, stored + 2);
    load_vector<1>(at + width + 1, stored + 3);
#pragma unroll
    for (float& value : stored) value = ct_window::rescale<false>(value, s.slope, s.intercept);
    h[k] = s.index < 0 ? NAN : interpolate(y, x, stored[0], stored[1], stored[2], stored[3]);
  }
  const int64_t left = shape.out_width - j;
  const int count = left < kPixels ? int(left) : kPixels;
  const bool vector = shape.out_width % kPixels == 0;
  const auto window_of = [&](int64_t k) {
    const auto window = Row(windows, b, k).template get<double>(Step<Access::kScalar, 2>{0});
    return ct_window::LevelAndWidth{window[0], window[1]};
  };
  const int64_t pixel = i * shape.out_width + j;
  ct_window::store_windows<false>(h, window_of, function, false,
                                  ct_window::Planes{images, shape.windows, shape.out_pixels()}, b,
                                  pixel, count, vector);
  if (masks == nullptr) return;
  const uint8_t* const mask = masks + (s.index < 0 ? 0 : s.index) * pixels;
  uint8_t chosen[kPixels];
#pragma unroll
  for (int k = 0; k < kPixels; ++k) {
    const int32_t column = nearest(position(x_step, int32_t(j + k), x_row), width);
    const int32_t row = nearest(position(y_step, int32_t(j + k), y_row), height);
    const bool inside = (row | column) >= 0 && s.index >= 0;
    chosen[k] = inside && load_word<uint8_t>(mask + (inside ? row * width + column : 0)) != 0;
  }
  uint8_t* const out = masks_out + b * shape.out_pixels() + pixel;
  if (vector) {
    uint32_t word;
    std::memcpy(&word, chosen, sizeof word);
    store_word(out, word);
  } else {
#pragma unroll
    for (int k = 0; k < kPixels; ++k)
      if (k < count) store_word(out + k, chosen[k]);
  }
}

// `masks` and `masks_out` may be null.
template <class Launch>
void forward(const Launch& launch, const int16_t* pool, const uint8_t* masks,
             const int64_t* indices, int64_t indices_stride, Input<Number> theta,
             Input<Number> slopes, Input<Number> intercepts, Input<Number> windows,
             const Shape& shape, ct_window::Function function, Output<Floating> images,
             uint8_t* masks_out) {
  constexpr int kThreads = Launch::kThreads;
  const int64_t per_image = (shape.out_width + kPixels - 1) / kPixels * shape.out_height;
  const int64_t blocks = (per_image + kThreads - 1) / kThreads;
  launch(sample<kThreads>, shape.batch * blocks, pool, masks, indices, indices_stride, theta,
         slopes, intercepts, windows, shape, function, images, masks_out);
}

}  // namespace ichfast::pool_batch
