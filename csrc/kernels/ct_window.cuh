// CT windowing: stored values in, windowed and averaged images out, one pass. What is computed, and
// in which order, is as on the CPU: sums over the rows under an output pixel, then over its
// columns.
#pragma once

#include "kernels/common/store_windows.h"

namespace ichfast::ct_window {

// Of the tensors: stored is (image, row, column), slope and intercept (image,), windows (K, 2).
struct Shape {
  int64_t images, height, width, windows, out_height, out_width;

  ICHFAST_HD int64_t out_pixels() const { return out_height * out_width; }
};

struct Options {
  Function function;
  bool invert, has_padding;
  double padding;
};

// From stored values to h (see math/ct_window.h), the same for all pixels of an image.
template <class A>
struct Rescale {
  A slope, intercept, padding;
  bool has_padding;

  ICHFAST_DEVICE Rescale(Input<Number> slopes, Input<Number> intercepts, const Options& options,
                         int64_t image)
      : slope(A(number_or(slopes, image, 1.0))),
        intercept(A(number_or(intercepts, image, 0.0) + double(kOffset))),
        padding(A(options.padding)),
        has_padding(options.has_padding) {}

  // Integers cannot become NaN then.
  ICHFAST_DEVICE bool finite() const {
    return slope - slope == A(0) && intercept - intercept == A(0);
  }

  template <bool kNoNaN>
  ICHFAST_DEVICE A operator()(A stored) const {
    const A h = rescale<kNoNaN>(stored, slope, intercept);
    return has_padding && stored == padding ? A(kAir) : h;
  }
};

// Reads window k of (K, 2).
struct WindowReader {
  Input<Number> windows;

  ICHFAST_DEVICE LevelAndWidth operator()(int64_t k) const {
    return {number<double>(windows, k, 0), number<double>(windows, k, 1)};
  }
};

// Output pixels of a thread in whole_ratio: 16 bytes of a half type.
constexpr int kPixels = 8;

// Blocks of whole_ratio that share a multiprocessor at least: where nothing is said, the compiler
// aims at more and spills registers.
constexpr int kBlocks = 3;

// Images whose sides shrink by kRatio, 1 or 2, row by row in vectors. T is a 16-bit integer.
template <int kRatio, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kBlocks)
    whole_ratio(Input<T> stored, Input<Number> slopes, Input<Number> intercepts,
                Input<Number> windows, Shape shape, Options options, Output<Floating> result) {
  constexpr int kColumns = kRatio * kPixels;
  const uint32_t per_row = uint32_t(shape.out_width) / kPixels;
  const uint32_t per_image = per_row * uint32_t(shape.out_height);
  const uint32_t blocks = (per_image + kThreads - 1) / kThreads;
  const int64_t image = blockIdx.x / blocks;
  const uint32_t index = blockIdx.x % blocks * kThreads + threadIdx.x;
  if (index >= per_image) return;
  const int64_t y = index / per_row, x = int64_t(index % per_row) * kPixels;
  const T* const at =
      stored.data + image * stored.strides.image + y * kRatio * stored.strides.channel + x * kRatio;
  float values[kRatio][kColumns];
#pragma unroll
  for (int r = 0; r < kRatio; ++r)
    load_vector<kColumns>(at + r * stored.strides.channel, values[r]);

  const Rescale<float> rescaled(slopes, intercepts, options, image);
  const auto run = [&](auto no_nan) {
    constexpr bool kNoNaN = decltype(no_nan)::value;
    float sums[kColumns], h[kPixels];
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float first = rescaled.template operator()<kNoNaN>(values[0][i]);
      sums[i] = first / kRatio;
      if constexpr (kRatio == 2)
        sums[i] += 0.5f * rescaled.template operator()<kNoNaN>(values[1][i]);
    }
#pragma unroll
    for (int i = 0; i < kPixels; ++i)
      h[i] = kRatio == 2 ? 0.5f * (sums[kRatio * i] + sums[kRatio * i + kRatio - 1]) : sums[i];
    store_windows<kNoNaN>(h, WindowReader{windows}, options.function, options.invert,
                          Planes{result, shape.windows, shape.out_pixels()}, image,
                          y * shape.out_width + x, kPixels, true);
  };
  if (rescaled.finite())
    run(std::true_type{});
  else
    run(std::false_type{});
}

// The input cells under one output cell: whole ones, but for the two ends.
template <class A>
struct Covered {
  Cell cells;
  A of_first, of_whole, of_last;

  ICHFAST_DEVICE Covered(int64_t index, int64_t n_in, int64_t n_out)
      : cells(cell(index, n_in, n_out)),
        of_first(weight<A>(cells.first, index, n_in, n_out)),
        of_whole(A(n_out) / A(n_in)),
        of_last(weight<A>(cells.last - 1, index, n_in, n_out)) {}

  ICHFAST_DEVICE A share(int64_t j) const {
    return j == cells.first ? of_first : j == cells.last - 1 ? of_last : of_whole;
  }
};

// Any ratio, dtype and layout, an output pixel a thread.
// 16-byte accesses: none, since the pixels under an output pixel may lie anywhere.
template <class A, int kThreads>
__global__ void __launch_bounds__(kThreads)
    any_ratio(Input<Number> stored, Input<Number> slopes, Input<Number> intercepts,
              Input<Number> windows, Shape shape, Options options, Output<Floating> result) {
  const int64_t blocks = (shape.out_pixels() + kThreads - 1) / kThreads;
  const int64_t image = blockIdx.x / blocks;
  const int64_t pixel = blockIdx.x % blocks * kThreads + threadIdx.x;
  if (pixel >= shape.out_pixels()) return;
  const int64_t y = pixel / shape.out_width, x = pixel % shape.out_width;
  const Covered<A> rows(y, shape.height, shape.out_height);
  const Covered<A> columns(x, shape.width, shape.out_width);
  const Rescale<A> rescaled(slopes, intercepts, options, image);
  A h[1] = {A(0)};
  stored.visit([&](const auto* data) {
    const auto* const of_image = data + image * stored.strides.image;
    for (int64_t column = columns.cells.first; column < columns.cells.last; ++column) {
      A sum = 0;
      for (int64_t row = rows.cells.first; row < rows.cells.last; ++row) {
        A value;
        load_vector<1>(of_image + row * stored.strides.channel + column * stored.strides.voxel,
                       &value);
        sum += product(rows.share(row), rescaled.template operator()<false>(value));
      }
      h[0] += product(columns.share(column), sum);
    }
  });
  store_windows<false>(h, WindowReader{windows}, options.function, options.invert,
                       Planes{result, shape.windows, shape.out_pixels()}, image, pixel, 1, false);
}

// Launches whole_ratio where it can take the images.
template <int kRatio, class T, class Launch>
bool launch_whole_ratio(const Launch& launch, Input<Number> stored, Input<Number> slopes,
                        Input<Number> intercepts, Input<Number> windows, const Shape& s,
                        const Options& options, Output<Floating> result) {
  constexpr int kThreads = Launch::kThreads;
  constexpr int64_t kVector = 16 / sizeof(T);
  if (stored.which != kPosition<T, Number> || s.height != kRatio * s.out_height ||
      s.width != kRatio * s.out_width || s.out_width % kPixels != 0 ||
      s.out_pixels() >= int64_t(1) << 31 || stored.strides.voxel != 1 ||
      stored.strides.channel % kVector != 0 || stored.strides.image % kVector != 0 ||
      reinterpret_cast<uintptr_t>(stored.data) % 16 != 0)
    return false;
  const int64_t blocks = (s.out_pixels() / kPixels + kThreads - 1) / kThreads;
  const Input<T> typed{static_cast<const T*>(stored.data), stored.strides};
  launch(whole_ratio<kRatio, T, kThreads>, s.images * blocks, typed, slopes, intercepts, windows, s,
         options, result);
  return true;
}

// A computes: double for stored values that float cannot tell apart, and for double itself.
template <class A, class Launch>
void forward(const Launch& launch, Input<Number> stored, Input<Number> slopes,
             Input<Number> intercepts, Input<Number> windows, const Shape& shape,
             const Options& options, Output<Floating> result) {
  constexpr int kThreads = Launch::kThreads;
  const auto whole = [&]<int kRatio, class T>() {
    return launch_whole_ratio<kRatio, T>(launch, stored, slopes, intercepts, windows, shape,
                                         options, result);
  };
  if (whole.template operator()<2, int16_t>() || whole.template operator()<2, uint16_t>() ||
      whole.template operator()<1, int16_t>() || whole.template operator()<1, uint16_t>())
    return;
  const int64_t blocks = (shape.out_pixels() + kThreads - 1) / kThreads;
  launch(any_ratio<A, kThreads>, shape.images * blocks, stored, slopes, intercepts, windows, shape,
         options, result);
}

}  // namespace ichfast::ct_window
