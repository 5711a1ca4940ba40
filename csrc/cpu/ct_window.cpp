// CT windowing on the CPU: stored values in, windowed and averaged images out, one pass.
//
// The area average is separable. For each output row the input rows under it are rescaled, clipped
// and added into one row (a loop over columns, which vectorises); then neighbouring columns are
// averaged, and the window is applied to the few samples that remain.
#include "math/ct_window.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"
#include "cpu/common/window.h"

namespace ichfast {
namespace {

using namespace ct_window;

// Which input cells an output cell covers, and what share of it each of them is.
template <class A>
struct Coverage {
  struct Covered {
    int64_t first, count;
    const A* weights;
  };

  Coverage(int64_t n_in, int64_t n_out) : cells(n_out) {
    weights.reserve(n_in + 2 * n_out);  // each edge is shared by at most two cells: never grows
    for (int64_t i = 0; i < n_out; ++i) {
      const auto [first, last] = cell(i, n_in, n_out);
      cells[i] = {first, last - first, weights.data() + weights.size()};
      for (int64_t j = first; j < last; ++j) weights.push_back(weight<A>(j, i, n_in, n_out));
    }
    this->ratio = n_in % n_out ? 0 : n_in / n_out;
  }

  std::vector<A> weights;
  std::vector<Covered> cells;
  int64_t ratio;  // n_in / n_out, or 0 where that is no integer
};

template <class A>
struct Rescale {
  A slope, intercept;  // to h, see math/ct_window.h
  std::optional<A> padding;
};

// Slope 1 and a whole intercept, as most CT has, of int16: clipping is done on the stored values
// themselves, and two of them still fit into 16 bits. All of this is exact in float too, so the
// bits are the same.
struct Whole {
  int16_t low, high;  // what is clipped to
  bool has_padding;
  int16_t padding, air;
  float intercept;  // to h
};

std::optional<Whole> whole(const Rescale<float>& r) {
  if (r.slope != 1.0f || r.intercept != std::nearbyint(r.intercept)) return std::nullopt;
  const float low = -r.intercept, high = kMax - r.intercept;
  if (!(2 * low >= -32768.0f && 2 * high <= 32767.0f)) return std::nullopt;
  const float padding = r.padding.value_or(0.5f);  // which no stored value is
  const bool has_padding =
      padding == std::nearbyint(padding) && padding >= -32768.0f && padding <= 32767.0f;
  return Whole{int16_t(low),
               int16_t(high),
               has_padding,
               int16_t(has_padding ? padding : 0.0f),
               int16_t(kAir - r.intercept),
               r.intercept};
}

std::optional<Whole> whole(const Rescale<double>&) {
  return std::nullopt;
}

template <bool kPadding>
ICHFAST_INLINE void add_whole(const int16_t* first, const int16_t* second, const Whole w, int64_t n,
                              int16_t* sum) {
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
    sum[i] = int16_t(ca + cb);
  }
}

ICHFAST_SIMD void add_whole_rows(const int16_t* first, const int16_t* second, const Whole& w,
                                 int64_t n, int16_t* sum) {
  w.has_padding ? add_whole<true>(first, second, w, n, sum)
                : add_whole<false>(first, second, w, n, sum);
}

ICHFAST_SIMD void halve_whole(const int16_t* sum, float intercept, int64_t n_out, float* h) {
#pragma omp simd
  for (int64_t i = 0; i < n_out; ++i) {
    int32_t pair;  // a pair at a time: little-endian, so the first is its low half
    std::memcpy(&pair, sum + 2 * i, sizeof pair);
    const int32_t low = int32_t(uint32_t(pair) << 16) >> 16;
    h[i] = float(low + (pair >> 16)) * 0.25f + intercept;
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
    sum[i] = kFirst ? weight * h : sum[i] + weight * h;
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
    for (int64_t j = 0; j < cell.count; ++j) sum += cell.weights[j] * row[cell.first + j];
    out[i] = sum;
  }
}

// A clone for the sake of its fused multiply-add: so it rounds as the GPU does.
ICHFAST_SIMD void average_all(const float* row, const Coverage<float>& columns, float* out) {
  average_cells(row, columns, out);
}

void average_all(const double* row, const Coverage<double>& columns, double* out) {
  average_cells(row, columns, out);
}

// Averages neighbouring columns; the result is in `out`, or `row` itself where the width stays.
template <class A>
const A* average(const A* row, const Coverage<A>& columns, A* out) {
  if (columns.ratio == 1) return row;
  if (columns.ratio == 2)
    halve(row, columns.cells.size(), out);
  else
    average_all(row, columns, out);
  return out;
}

// What is the same for all rows. Tensors are asked once: each question is a call through the stable
// ABI, and a dozen for each row took as long as the pixels.
template <class A>
struct Plan {
  struct Stored {
    const void* data;
    ScalarType dtype;
    int64_t image, row, column;  // strides
    int64_t width;
  } stored;
  struct Result {
    void* data;
    ScalarType dtype;
    int64_t height, width;
  } result;
  const std::vector<Window<A>>& windows;
  Coverage<A> rows, columns;
  std::vector<Rescale<A>> rescales;  // per image
  std::vector<std::optional<Whole>> wholes;
};

// Room for a row at each stage.
template <class A>
struct Buffers {
  Buffers(int64_t width, int64_t out_width)
      : loaded(width), sum(width), averaged(out_width), windowed(out_width), pairs(width) {}

  std::vector<A> loaded, sum, averaged, windowed;
  std::vector<int16_t> pairs;
};

// h of one output row of image b.
template <class A>
const A* average_row(const Plan<A>& plan, int64_t b, int64_t y, bool fast, Buffers<A>& buffers) {
  const auto& s = plan.stored;
  const auto& cell = plan.rows.cells[y];
  const Rescale<A>& r = plan.rescales[b];
  A* const sum = buffers.sum.data();
  for (int64_t j = 0; j < cell.count; ++j) {
    const int64_t element = b * s.image + (cell.first + j) * s.row;
    const A weight = cell.weights[j];
    if constexpr (sizeof(A) == sizeof(float)) {
      const int16_t* const row = static_cast<const int16_t*>(s.data) + element;
      if (fast && plan.wholes[b] && plan.rows.ratio == 2 && plan.columns.ratio == 2) {
        const Whole& w = *plan.wholes[b];
        add_whole_rows(row, row + s.row, w, s.width, buffers.pairs.data());
        halve_whole(buffers.pairs.data(), w.intercept, plan.result.width, buffers.averaged.data());
        return buffers.averaged.data();
      }
      if (fast) {
        add(row, r, weight, j == 0, s.width, sum);
        continue;
      }
    }
    add(load(s.dtype, s.data, element, s.column, s.width, buffers.loaded.data()), r, weight, j == 0,
        s.width, sum);
  }
  return average(sum, plan.columns, buffers.averaged.data());
}

// One output row of image b, all windows.
template <class A>
void window_output_row(const Plan<A>& plan, int64_t b, int64_t y, Buffers<A>& buffers) {
  const Rescale<A>& r = plan.rescales[b];
  // Integers rescaled by finite numbers cannot become NaN.
  const bool fast = sizeof(A) == sizeof(float) && plan.stored.dtype == ScalarType::Short &&
                    plan.stored.column == 1 && std::isfinite(r.slope) && std::isfinite(r.intercept);
  const A* const h = average_row(plan, b, y, fast, buffers);
  const auto& to = plan.result;
  const int64_t k_windows = int64_t(plan.windows.size());
  const bool direct = to.dtype == (sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float);
  for (int64_t k = 0; k < k_windows; ++k) {
    const int64_t element = ((b * k_windows + k) * to.height + y) * to.width;
    A* const out = direct ? static_cast<A*>(to.data) + element : buffers.windowed.data();
    apply_window(h, plan.windows[k], fast, to.width, out);
    if (!direct) store(to.dtype, to.data, element, 1, to.width, out);
  }
}

template <class A>
void forward(const Tensor& stored, const Tensor& slope, const Tensor& intercept,
             const std::vector<Window<A>>& windows, std::optional<double> padding, Tensor& result) {
  const int64_t images = stored.size(0), height = stored.size(1), width = stored.size(2);
  const int64_t out_height = result.size(2), out_width = result.size(3);
  Plan<A> plan{{stored.const_data_ptr(), stored.scalar_type(), stored.stride(0), stored.stride(1),
                stored.stride(2), width},
               {result.mutable_data_ptr(), result.scalar_type(), out_height, out_width},
               windows,
               {height, out_height},
               {width, out_width},
               {},
               {}};
  for (int64_t b = 0; b < images; ++b) {
    plan.rescales.push_back({A(number_at(slope, b * slope.stride(0))),
                             A(number_at(intercept, b * intercept.stride(0)) + double(kOffset)),
                             padding ? std::optional<A>(A(*padding)) : std::nullopt});
    plan.wholes.push_back(whole(plan.rescales.back()));
  }
  const int64_t row_pixels = std::max<int64_t>(1, height / out_height) * width;
  const int64_t grain = std::max<int64_t>(1, kGrain / row_pixels);
  torch::stable::parallel_for(0, images * out_height, grain, [&](int64_t begin, int64_t end) {
    Buffers<A> buffers(width, out_width);
    for (int64_t row = begin; row < end; ++row)
      window_output_row(plan, row / out_height, row % out_height, buffers);
  });
}

template <class A>
std::vector<Window<A>> read_windows(const Tensor& windows, Function function, bool invert) {
  std::vector<Window<A>> result;
  for (int64_t k = 0; k < windows.size(0); ++k) {
    const int64_t row = k * windows.stride(0);
    result.push_back(checked_window<A>("ct_window", number_at(windows, row),
                                       number_at(windows, row + windows.stride(1)), function,
                                       invert));
  }
  return result;
}

Tensor ct_window_cpu(const Tensor& stored, const Tensor& slope, const Tensor& intercept,
                     const Tensor& windows, std::vector<int64_t> size,
                     const std::string& function_name, std::optional<double> padding, bool invert,
                     ScalarType dtype) {
  const Function function =
      check_ct_window(stored, slope, intercept, windows, size, function_name, dtype);
  Tensor result =
      torch::stable::new_empty(stored, {stored.size(0), windows.size(0), size[0], size[1]}, dtype);
  if (needs_double(stored)) {
    forward(stored, slope, intercept, read_windows<double>(windows, function, invert), padding,
            result);
  } else {
    forward(stored, slope, intercept, read_windows<float>(windows, function, invert), padding,
            result);
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("ct_window", TORCH_BOX(&ct_window_cpu));
}

}  // namespace ichfast
