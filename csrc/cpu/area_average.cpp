// The area average is separable. For each output row the input rows under it are rescaled, clipped
// and added into one row (a loop over columns, which vectorises); then neighbouring columns are
// averaged.
#include "cpu/common/unfused.h"

#include "cpu/area_average.h"

#include <cmath>
#include <cstring>

#include "cpu/common/simd.h"
#include "cpu/common/tile.h"

namespace ichfast::ct_window {
namespace {

std::optional<Whole> whole(const Rescale<float>& r) {
  if (r.slope != 1.0f || r.intercept != std::nearbyint(r.intercept)) return std::nullopt;
  const float low = -r.intercept, high = kMax - r.intercept;
  if (!(2 * low >= -32768.0f && 2 * high <= 32767.0f)) return std::nullopt;
  const float padding = r.padding.value_or(0.5f);  // which no stored value is
  const bool has_padding =
      padding == std::nearbyint(padding) && padding >= -32768.0f && padding <= 32767.0f;
  return Whole{int16_t(low), int16_t(high), has_padding, int16_t(has_padding ? padding : 0.0f),
               int16_t(kAir - r.intercept)};
}

std::optional<Whole> whole(const Rescale<double>&) {
  return std::nullopt;
}

template <bool kPadding>
ICHFAST_INLINE void add_whole(const int16_t* first, const int16_t* second, const Whole w, int64_t n,
                              uint16_t* sum) {
  const int16_t offset = int16_t(-2 * w.low);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const int16_t a = first[i], b = second[i];
    int16_t ca = a < w.low ? w.low : a, cb = b < w.low ? w.low : b;
    ca = ca > w.high ? w.high : ca;
    cb = cb > w.high ? w.high : cb;
    if constexpr (kPadding) {
      ca = a == w.padding ? w.air : ca;
      cb = b == w.padding ? w.air : cb;
    }
    sum[i] = uint16_t(ca + cb + offset);
  }
}

ICHFAST_SIMD void add_whole_rows(const int16_t* first, const int16_t* second, const Whole& w,
                                 int64_t n, uint16_t* sum) {
  w.has_padding ? add_whole<true>(first, second, w, n, sum)
                : add_whole<false>(first, second, w, n, sum);
}

ICHFAST_SIMD void halve_whole(const uint16_t* sum, int64_t n_out, float* h) {
#pragma omp simd
  for (int64_t i = 0; i < n_out; ++i) {
    uint32_t pair;  // a pair at a time, whichever comes first
    std::memcpy(&pair, sum + 2 * i, sizeof pair);
    h[i] = float(int32_t((pair & 0xffffu) + (pair >> 16))) * 0.25f;
  }
}

template <bool kNoNaN, bool kFirst, bool kPadding, class T, class A>
ICHFAST_INLINE void add_row(const T* stored, const Rescale<A> r, A weight, int64_t n, A* sum) {
  const A padding = r.padding.value_or(A(0));
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const A value = A(stored[i]);
    A h = rescale<kNoNaN>(value, r.slope, r.intercept);
    if constexpr (kPadding) h = value == padding ? A(kAir) : h;
    sum[i] = kFirst ? product(weight, h) : sum[i] + product(weight, h);
  }
}

template <bool kNoNaN, class T, class A>
ICHFAST_INLINE void add_row(const T* stored, const Rescale<A> r, A weight, bool first, int64_t n,
                            A* sum) {
  if (r.padding) {
    first ? add_row<kNoNaN, true, true>(stored, r, weight, n, sum)
          : add_row<kNoNaN, false, true>(stored, r, weight, n, sum);
  } else {
    first ? add_row<kNoNaN, true, false>(stored, r, weight, n, sum)
          : add_row<kNoNaN, false, false>(stored, r, weight, n, sum);
  }
}

// int16 is what CT comes as, and goes without a conversion pass; all else is loaded as A first.
ICHFAST_SIMD void add(const int16_t* stored, const Rescale<float>& r, float weight, bool first,
                      int64_t n, float* sum) {
  add_row<true>(stored, r, weight, first, n, sum);
}

ICHFAST_SIMD void add(const float* stored, const Rescale<float>& r, float weight, bool first,
                      int64_t n, float* sum) {
  add_row<false>(stored, r, weight, first, n, sum);
}

void add(const double* stored, const Rescale<double>& r, double weight, bool first, int64_t n,
         double* sum) {
  add_row<false>(stored, r, weight, first, n, sum);
}

template <class A>
ICHFAST_INLINE void average_pairs(const A* row, int64_t n_out, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n_out; ++i) out[i] = A(0.5) * (row[2 * i] + row[2 * i + 1]);
}

ICHFAST_SIMD void halve(const float* row, int64_t n_out, float* out) {
  average_pairs(row, n_out, out);
}

void halve(const double* row, int64_t n_out, double* out) {
  average_pairs(row, n_out, out);
}

template <class A>
ICHFAST_INLINE void average_cells(const A* row, const Coverage<A>& columns, A* out) {
  const int64_t n_out = columns.cells.size();
  for (int64_t i = 0; i < n_out; ++i) {
    const auto& cell = columns.cells[i];
    A sum = 0;
    for (int64_t j = 0; j < cell.count; ++j) sum += product(cell.weights[j], row[cell.first + j]);
    out[i] = sum;
  }
}

// Averages neighbouring columns; the result is in `out`, or `row` itself where the width stays.
template <class A>
const A* average(const A* row, const Coverage<A>& columns, A* out) {
  if (columns.ratio == 1) return row;
  if (columns.ratio == 2)
    halve(row, columns.cells.size(), out);
  else
    average_cells(row, columns, out);
  return out;
}

}  // namespace

template <class A>
AreaAverage<A>::AreaAverage(const Tensor& stored, int64_t out_height, int64_t out_width,
                            const std::vector<Rescale<A>>& rescales)
    : data_(stored.const_data_ptr()),
      dtype_(stored.scalar_type()),
      image_(stored.stride(0)),
      row_(stored.stride(1)),
      column_(stored.stride(2)),
      width_(stored.size(2)),
      rows_(stored.size(1), out_height),
      columns_(width_, out_width) {
  const bool int16 = sizeof(A) == sizeof(float) && dtype_ == ScalarType::Short && column_ == 1;
  for (const Rescale<A>& r : rescales)
    images_.push_back({r, whole(r), int16 && std::isfinite(r.slope) && std::isfinite(r.intercept)});
}

template <class A>
AreaAverage<A>::Buffers::Buffers(const AreaAverage& average)
    : loaded(average.width_),
      sum(average.width_),
      averaged(average.columns_.cells.size()),
      pairs(average.width_) {}

template <class A>
const A* AreaAverage<A>::row(int64_t b, int64_t y, Buffers& buffers) const {
  const auto& [r, whole, fast] = images_[b];
  const auto& cell = rows_.cells[y];
  A* const sum = buffers.sum.data();
  for (int64_t j = 0; j < cell.count; ++j) {
    const int64_t element = b * image_ + (cell.first + j) * row_;
    const A weight = cell.weights[j];
    if constexpr (sizeof(A) == sizeof(float)) {
      const int16_t* const row = static_cast<const int16_t*>(data_) + element;
      if (fast && whole && rows_.ratio == 2 && columns_.ratio == 2) {
        add_whole_rows(row, row + row_, *whole, width_, buffers.pairs.data());
        halve_whole(buffers.pairs.data(), columns_.cells.size(), buffers.averaged.data());
        return buffers.averaged.data();
      }
      if (fast) {
        add(row, r, weight, j == 0, width_, sum);
        continue;
      }
    }
    add(load(dtype_, data_, element, column_, width_, buffers.loaded.data()), r, weight, j == 0,
        width_, sum);
  }
  return average(sum, columns_, buffers.averaged.data());
}

template class AreaAverage<float>;
template class AreaAverage<double>;

}  // namespace ichfast::ct_window
