// CT windowing on the CPU: stored values in, windowed and averaged images out, one pass.
//
// The area average is separable. For each output row the input rows under it are rescaled, clipped
// and added into one row of HU (a loop over columns, which vectorises); then neighbouring columns
// are averaged, and the window is applied to the few samples that remain.
#include "math/ct_window.h"

#include <string>
#include <vector>

#include "common/parallel.h"
#include "common/simd.h"

namespace ichfast {
namespace {

using namespace ct_window;

// Which input cells an output cell covers, and what share of it each of them is.
template <class A>
struct Coverage {
  struct Cell {
    int64_t first, count;
    const A* weights;
  };

  Coverage(int64_t n_in, int64_t n_out) : cells(n_out) {
    const double ratio = double(n_in) / double(n_out);
    weights.reserve(n_in + 2 * n_out);  // each edge is shared by at most two cells: never grows
    for (int64_t i = 0; i < n_out; ++i) {
      // Exact in integers: cell i covers [i·n_in/n_out, (i+1)·n_in/n_out).
      const int64_t first = i * n_in / n_out, last = ((i + 1) * n_in + n_out - 1) / n_out;
      cells[i] = {first, last - first, weights.data() + weights.size()};
      for (int64_t j = first; j < last; ++j) {
        const double covered =
            std::min<double>(j + 1, (i + 1) * ratio) - std::max<double>(j, i * ratio);
        weights.push_back(A(covered / ratio));
      }
    }
    pairs = n_in == 2 * n_out;
  }

  std::vector<A> weights;
  std::vector<Cell> cells;
  bool pairs;  // the common halving, which has a loop of its own
};

template <class A>
struct Rescale {
  A slope, intercept;
  bool has_padding;
  A padding;
};

template <bool kFirst, bool kPadding, class A>
inline __attribute__((always_inline)) void add_row(const A* stored, const Rescale<A> r, A weight,
                                                   int64_t n, A* sum) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    A hu = hounsfield(stored[i], r.slope, r.intercept);
    if constexpr (kPadding) hu = stored[i] == r.padding ? A(kAir) : hu;
    sum[i] = kFirst ? weight * hu : sum[i] + weight * hu;
  }
}

template <class A>
inline __attribute__((always_inline)) void add_row(const A* stored, const Rescale<A>& r, A weight,
                                                   bool first, int64_t n, A* sum) {
  if (r.has_padding) {
    first ? add_row<true, true>(stored, r, weight, n, sum)
          : add_row<false, true>(stored, r, weight, n, sum);
  } else {
    first ? add_row<true, false>(stored, r, weight, n, sum)
          : add_row<false, false>(stored, r, weight, n, sum);
  }
}

ICHFAST_SIMD void add(const float* stored, const Rescale<float>& r, float weight, bool first,
                      int64_t n, float* sum) {
  add_row(stored, r, weight, first, n, sum);
}

void add(const double* stored, const Rescale<double>& r, double weight, bool first, int64_t n,
         double* sum) {
  add_row(stored, r, weight, first, n, sum);
}

template <class A>
inline __attribute__((always_inline)) void average_pairs(const A* row, int64_t n_out, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n_out; ++i) out[i] = A(0.5) * (row[2 * i] + row[2 * i + 1]);
}

ICHFAST_SIMD void halve(const float* row, int64_t n_out, float* out) {
  average_pairs(row, n_out, out);
}

void halve(const double* row, int64_t n_out, double* out) { average_pairs(row, n_out, out); }

template <class A>
void average(const A* row, const Coverage<A>& columns, A* out) {
  const int64_t n_out = columns.cells.size();
  if (columns.pairs) return halve(row, n_out, out);
  for (int64_t i = 0; i < n_out; ++i) {
    const auto& cell = columns.cells[i];
    A sum = 0;
    for (int64_t j = 0; j < cell.count; ++j) sum += cell.weights[j] * row[cell.first + j];
    out[i] = sum;
  }
}

template <class A>
inline __attribute__((always_inline)) void window_row(const A* hu, const Window<A> w, int64_t n,
                                                      A* out) {
  if (w.function == Function::kSigmoid) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = sigmoidal(hu[i], w);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] = linear(hu[i], w);
  }
}

ICHFAST_SIMD void apply(const float* hu, const Window<float>& w, int64_t n, float* out) {
  window_row(hu, w, n, out);
}

void apply(const double* hu, const Window<double>& w, int64_t n, double* out) {
  window_row(hu, w, n, out);
}

template <class A>
void forward(const Tensor& stored, const Tensor& slope, const Tensor& intercept,
             const std::vector<Window<A>>& windows, std::optional<double> padding, Tensor& result) {
  const int64_t images = stored.size(0), height = stored.size(1), width = stored.size(2);
  const int64_t out_height = result.size(2), out_width = result.size(3);
  if (images == 0 || out_height == 0 || out_width == 0) return;
  const Coverage<A> rows(height, out_height), columns(width, out_width);
  const double* const slopes = slope.const_data_ptr<double>();
  const double* const intercepts = intercept.const_data_ptr<double>();
  const ScalarType in_dtype = stored.scalar_type(), out_dtype = result.scalar_type();
  const void* const in = stored.const_data_ptr();
  void* const out = result.mutable_data_ptr();
  const int64_t kRows = 16;  // output rows that one task works on
  torch::stable::parallel_for(0, images * out_height, kRows, [&](int64_t begin, int64_t end) {
    std::vector<A> buffer(width), sum(width), hu(out_width), windowed(out_width);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / out_height, y = row % out_height;
      const Rescale<A> rescale{A(slopes[b]), A(intercepts[b]), padding.has_value(),
                               A(padding.value_or(0))};
      const auto& cell = rows.cells[y];
      for (int64_t j = 0; j < cell.count; ++j) {
        const int64_t element = b * stored.stride(0) + (cell.first + j) * stored.stride(1);
        const A* const values = load(in_dtype, in, element, stored.stride(2), width, buffer.data());
        add(values, rescale, cell.weights[j], j == 0, width, sum.data());
      }
      average(sum.data(), columns, hu.data());
      for (size_t k = 0; k < windows.size(); ++k) {
        apply(hu.data(), windows[k], out_width, windowed.data());
        const int64_t element = ((b * int64_t(windows.size()) + int64_t(k)) * out_height + y) * out_width;
        store(out_dtype, out, element, 1, out_width, windowed.data());
      }
    }
  });
}

template <class A>
std::vector<Window<A>> read_windows(const Tensor& windows, Function function, bool invert) {
  std::vector<Window<A>> result;
  const double* const values = windows.const_data_ptr<double>();
  const double least = function == Function::kLinear ? 1.0 : 0.0;
  for (int64_t k = 0; k < windows.size(0); ++k) {
    const double level = values[2 * k], width = values[2 * k + 1];
    STD_TORCH_CHECK(width >= least && width > 0,
                    "ct_window: a window's width must be positive, and at least 1 for 'linear'; got ",
                    width);
    result.push_back(window(A(level), A(width), function, invert));
  }
  return result;
}

Function parse(const std::string& function) {
  if (function == "linear") return Function::kLinear;
  if (function == "linear_exact") return Function::kLinearExact;
  STD_TORCH_CHECK(function == "sigmoid",
                  "ct_window: function must be 'linear', 'linear_exact' or 'sigmoid', not '",
                  function, "'");
  return Function::kSigmoid;
}

Tensor ct_window_cpu(const Tensor& stored, const Tensor& slope_in, const Tensor& intercept_in,
                     const Tensor& windows_in, std::vector<int64_t> size,
                     const std::string& function_name, std::optional<double> padding, bool invert,
                     ScalarType dtype) {
  STD_TORCH_CHECK(stored.dim() == 3, "ct_window: stored must be (B, H, W)");
  STD_TORCH_CHECK(slope_in.dim() == 1 && slope_in.size(0) == stored.size(0) &&
                      intercept_in.dim() == 1 && intercept_in.size(0) == stored.size(0),
                  "ct_window: slope and intercept must be (B,)");
  STD_TORCH_CHECK(windows_in.dim() == 2 && windows_in.size(1) == 2,
                  "ct_window: windows must be (K, 2), level and width");
  STD_TORCH_CHECK(size.size() == 2 && size[0] > 0 && size[1] > 0 && stored.size(1) > 0 &&
                      stored.size(2) > 0,
                  "ct_window: size must be two positive integers, and images not empty");
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half ||
                      dtype == ScalarType::BFloat16 || dtype == ScalarType::Double,
                  "ct_window: dtype must be a floating one");
  const Function function = parse(function_name);
  const auto as_double = [](const Tensor& t) {
    return torch::stable::contiguous(torch::stable::to(t, ScalarType::Double));
  };
  const Tensor slope = as_double(slope_in), intercept = as_double(intercept_in),
               windows = as_double(windows_in);
  Tensor result = torch::stable::new_empty(
      stored, {stored.size(0), windows.size(0), size[0], size[1]}, dtype);
  const ScalarType in = stored.scalar_type();
  // float32 cannot tell all integers of these two apart, and padding is compared for equality.
  if (is_double(stored) || in == ScalarType::Int || in == ScalarType::Long) {
    forward(stored, slope, intercept, read_windows<double>(windows, function, invert), padding,
            result);
  } else {
    forward(stored, slope, intercept, read_windows<float>(windows, function, invert), padding,
            result);
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) { m.impl("ct_window", TORCH_BOX(&ct_window_cpu)); }

}  // namespace ichfast
