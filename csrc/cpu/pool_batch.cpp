// Training batches from a pool on the CPU, one output row after the other. See math/pool_batch.h.
//
// A row goes through four loops, a run of pixels at a time: where they look (vectorised), the two
// pairs of stored values under each (32 bits a pair, fetched one by one), from them to h
// (vectorised), and the windows.
#include "cpu/common/unfused.h"

#include "ops/pool_batch.h"

#include <bit>
#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"
#include "cpu/common/window.h"

namespace ichfast {
namespace {

using namespace pool_batch;
using ct_window::Function;

static_assert(std::endian::native == std::endian::little, "a pair's first pixel is its low half");

// Pixels of a row that go through the loops together. The buffers between the loops are used to
// their ends, and all of them lie in a part of the first-level cache: were they longer than what is
// used of them, they would compete for the same few of its sets.
constexpr int64_t kRun = 128;

struct Axis {  // the positions of one row of pixels along one axis of the slice
  float first, step;
  int32_t n;
};

// Where the pixels of a row look: the first of four stored values, and what each weighs.
struct Points {
  int32_t at[kRun];
  float y_first[kRun], y_second[kRun], x_first[kRun], x_second[kRun];
};

// Columns become floats from 32 bits: from 64 they do in vectors only with AVX-512.
ICHFAST_SIMD void locate(const Axis& y, const Axis& x, int64_t from, int64_t n, Points& out) {
  const float y_first = y.first, y_step = y.step, x_first = x.first, x_step = x.step;
  const int32_t height = y.n, width = x.n;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const Taps row = taps(position(y_step, int32_t(from + i), y_first), height);
    const Taps column = taps(position(x_step, int32_t(from + i), x_first), width);
    out.at[i] = row.first * width + column.first;
    out.y_first[i] = row.weight_first;
    out.y_second[i] = row.weight_second;
    out.x_first[i] = column.weight_first;
    out.x_second[i] = column.weight_second;
  }
}

// Where in the slice the nearest pixels are, and all ones where they are inside, else 0.
ICHFAST_SIMD void locate_nearest(const Axis& y, const Axis& x, int64_t from, int64_t n, int32_t* at,
                                 int32_t* inside) {
  const float y_first = y.first, y_step = y.step, x_first = x.first, x_step = x.step;
  const int32_t height = y.n, width = x.n;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const int32_t row = nearest(position(y_step, int32_t(from + i), y_first), height);
    const int32_t column = nearest(position(x_step, int32_t(from + i), x_first), width);
    const int32_t outside = (row | column) >> 31;
    at[i] = (row * width + column) & ~outside;
    inside[i] = ~outside;
  }
}

struct Rescale {
  float slope, intercept;  // to h
};

template <bool kNoNaN>
ICHFAST_INLINE void interpolate_row(const Points& p, const int32_t* above, const int32_t* below,
                                    const Rescale r, int64_t n, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const auto h = [&](int32_t stored) {
      return ct_window::rescale<kNoNaN>(float(stored), r.slope, r.intercept);
    };
    // The low half, its sign extended, and the high half.
    const int32_t above_first = int32_t(uint32_t(above[i]) << 16) >> 16;
    const int32_t below_first = int32_t(uint32_t(below[i]) << 16) >> 16;
    out[i] = interpolate({0, p.y_first[i], p.y_second[i]}, {0, p.x_first[i], p.x_second[i]},
                         h(above_first), h(above[i] >> 16), h(below_first), h(below[i] >> 16));
  }
}

ICHFAST_SIMD void interpolate_all(const Points& p, const int32_t* above, const int32_t* below,
                                  const Rescale& r, bool no_nan, int64_t n, float* out) {
  no_nan ? interpolate_row<true>(p, above, below, r, n, out)
         : interpolate_row<false>(p, above, below, r, n, out);
}

struct Sample {
  const int16_t* stored;
  const uint8_t* mask;
  Map map;
  Rescale rescale;
  bool finite;  // no NaN can arise
};

struct Shape {
  int64_t height, width, out_height, out_width, windows;
};

// Output pixels [from, from + n) of row i.
void batch_run(const Sample& s, const Shape& shape, const ct_window::Window<float>* windows,
               int64_t sample, int64_t i, int64_t from, int64_t n, Tensor& images,
               uint8_t* masks_out) {
  const Axis x{row_start(s.map.x_i, i, s.map.x_0), float(s.map.x_j), int32_t(shape.width)};
  const Axis y{row_start(s.map.y_i, i, s.map.y_0), float(s.map.y_j), int32_t(shape.height)};
  Points points;
  locate(y, x, from, n, points);
  int32_t above[kRun], below[kRun];
  const int16_t* const first_row = s.stored;
  const int16_t* const second_row = s.stored + shape.width;
  for (int64_t k = 0; k < n; ++k) {
    std::memcpy(&above[k], first_row + points.at[k], sizeof above[k]);
    std::memcpy(&below[k], second_row + points.at[k], sizeof below[k]);
  }
  float h[kRun], windowed[kRun];
  interpolate_all(points, above, below, s.rescale, s.finite, n, h);
  const ScalarType dtype = images.scalar_type();
  for (int64_t k = 0; k < shape.windows; ++k) {
    const int64_t element =
        ((sample * shape.windows + k) * shape.out_height + i) * shape.out_width + from;
    const bool direct = dtype == ScalarType::Float;
    float* const out = direct ? static_cast<float*>(images.mutable_data_ptr()) + element : windowed;
    apply_window(h, windows[k], s.finite, n, out);
    if (!direct) store(dtype, images.mutable_data_ptr(), element, 1, n, out);
  }
  if (s.mask) {
    int32_t at[kRun];
    int32_t inside[kRun];
    locate_nearest(y, x, from, n, at, inside);
    uint8_t* const out = masks_out + (sample * shape.out_height + i) * shape.out_width + from;
    const uint8_t* const mask = s.mask;  // bytes may alias anything: not read anew for each pixel
    for (int64_t k = 0; k < n; ++k) out[k] = uint8_t((mask[at[k]] != 0) & inside[k]);
  }
}

// A turned row crosses the slice's rows, in an order that no hardware foresees: a slice is fetched
// beforehand, line after line, a part at a time. (Inline, since GCC takes a function that does
// nothing else for one without effect, and drops the call.)
ICHFAST_INLINE void prefetch(const void* data, int64_t bytes, int64_t part, int64_t parts) {
  constexpr int64_t kLine = 64;
  const char* const from = static_cast<const char*>(data);
  for (int64_t at = bytes * part / parts; at < bytes * (part + 1) / parts; at += kLine)
    __builtin_prefetch(from + at, 0, 2);  // into the second-level cache
}

ICHFAST_INLINE void prefetch(const Sample& s, int64_t pixels, int64_t part, int64_t parts) {
  constexpr int64_t kMost = 1 << 17;  // two slices with their masks and what is written must fit
  if (pixels > kMost) return;
  prefetch(s.stored, pixels * int64_t(sizeof *s.stored), part, parts);
  if (s.mask) prefetch(s.mask, pixels, part, parts);
}

std::vector<Sample> read_samples(const Arguments& in, const Shape& shape) {
  std::vector<Sample> samples;
  const int64_t pixels = shape.height * shape.width;
  for (int64_t b = 0; b < in.indices.size(0); ++b) {
    const int64_t index = in.indices.const_data_ptr<int64_t>()[b * in.indices.stride(0)];
    STD_TORCH_CHECK(index >= 0 && index < in.slices, "pool_batch: index ", index,
                    " is outside the pool of ", in.slices, " slices");
    double matrix[6];
    for (int64_t k = 0; k < 6; ++k)
      matrix[k] = number_at(in.theta, b * in.theta.stride(0) + k / 3 * in.theta.stride(1) +
                                          k % 3 * in.theta.stride(2));
    const Rescale r{float(number_at(in.slope, b, 1.0)),
                    float(number_at(in.intercept, b, 0.0) + double(ct_window::kOffset))};
    const Map m = map(matrix, shape.height, shape.width, shape.out_height, shape.out_width);
    double sum = double(r.slope) + r.intercept;
    for (const double number : {m.x_j, m.x_i, m.x_0, m.y_j, m.y_i, m.y_0}) sum += float(number);
    samples.push_back({in.pool + index * pixels, in.masks ? in.masks + index * pixels : nullptr, m,
                       r, std::isfinite(sum)});
  }
  return samples;
}

// (B, K) of them.
std::vector<ct_window::Window<float>> read_windows(const Arguments& in) {
  std::vector<ct_window::Window<float>> result;
  const Tensor& windows = in.windows;
  for (int64_t b = 0; b < windows.size(0); ++b) {
    for (int64_t k = 0; k < windows.size(1); ++k) {
      const int64_t at = b * windows.stride(0) + k * windows.stride(1);
      result.push_back(checked_window<float>("pool_batch", number_at(windows, at),
                                             number_at(windows, at + windows.stride(2)),
                                             in.function, false));
    }
  }
  return result;
}

void forward_cpu(const Arguments& arguments, Tensor& images, uint8_t* masks) {
  const int64_t batch = images.size(0);
  const Shape shape{arguments.height, arguments.width, images.size(2), images.size(3),
                    images.size(1)};
  const std::vector<Sample> samples = read_samples(arguments, shape);
  const std::vector<ct_window::Window<float>> windows = read_windows(arguments);
  const int64_t pixels = shape.height * shape.width;
  const int64_t grain = std::max<int64_t>(1, kChunk / shape.out_width);
  torch::stable::parallel_for(0, batch * shape.out_height, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / shape.out_height, i = row % shape.out_height;
      // With each row its share of the slice that comes next.
      if (row == begin) prefetch(samples[b], pixels, 0, 1);
      if (b + 1 < batch && row + shape.out_height - i < end)
        prefetch(samples[b + 1], pixels, i, shape.out_height);
      for (int64_t from = 0; from < shape.out_width; from += kRun)
        batch_run(samples[b], shape, windows.data() + b * shape.windows, b, i, from,
                  std::min(kRun, shape.out_width - from), images, masks);
    }
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("pool_batch", TORCH_BOX(&forward_op<forward_cpu>));
}

}  // namespace ichfast
