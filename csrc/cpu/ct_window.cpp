// CT windowing on the CPU: stored values in, windowed and averaged images out, one pass. Each
// output row is averaged first (cpu/area_average.cpp); the windows are applied to the few samples
// that remain.
#include "ops/ct_window.h"

#include <algorithm>
#include <vector>

#include "cpu/area_average.h"
#include "cpu/common/parallel.h"
#include "cpu/common/window.h"

namespace ichfast {
namespace {

using namespace ct_window;

template <class A>
std::vector<Rescale<A>> read_rescales(const Arguments& arguments) {
  const auto& [stored, slope, intercept, windows, function, padding, invert] = arguments;
  std::vector<Rescale<A>> result;
  for (int64_t b = 0; b < stored.size(0); ++b)
    result.push_back({A(number_at(slope, b, 1.0)),
                      A(number_at(intercept, b, 0.0) + double(kOffset)),
                      padding ? std::optional<A>(A(*padding)) : std::nullopt});
  return result;
}

template <class A>
std::vector<Window<A>> read_windows(const Arguments& arguments) {
  const Tensor& windows = arguments.windows;
  std::vector<Window<A>> result;
  for (int64_t k = 0; k < windows.size(0); ++k) {
    const int64_t row = k * windows.stride(0);
    result.push_back(checked_window<A>("ct_window", number_at(windows, row),
                                       number_at(windows, row + windows.stride(1)),
                                       arguments.function, arguments.invert));
  }
  return result;
}

template <class A>
void forward(const Arguments& arguments, Tensor& images) {
  const std::vector<Window<A>> windows = read_windows<A>(arguments);
  const int64_t out_height = images.size(2), out_width = images.size(3);
  const AreaAverage<A> average(arguments.stored, out_height, out_width,
                               read_rescales<A>(arguments));
  void* const data = images.mutable_data_ptr();
  const ScalarType dtype = images.scalar_type();
  const bool direct = dtype == (sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float);
  const int64_t height = arguments.stored.size(1), width = arguments.stored.size(2);
  const int64_t row_pixels = std::max<int64_t>(1, height / out_height) * width;
  const int64_t grain = std::max<int64_t>(1, kGrain / row_pixels);
  const int64_t rows = images.size(0) * out_height, k_windows = int64_t(windows.size());
  torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    typename AreaAverage<A>::Buffers buffers(average);
    std::vector<A> windowed(out_width);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / out_height, y = row % out_height;
      const A* const h = average.row(b, y, buffers);
      for (int64_t k = 0; k < k_windows; ++k) {
        const int64_t element = ((b * k_windows + k) * out_height + y) * out_width;
        A* const out = direct ? static_cast<A*>(data) + element : windowed.data();
        apply_window(h, windows[k], average.no_nan(b), out_width, out);
        if (!direct) store(dtype, data, element, 1, out_width, out);
      }
    }
  });
}

void forward_cpu(const Arguments& arguments, Tensor& images) {
  (arguments.in_double() ? forward<double> : forward<float>)(arguments, images);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("ct_window", TORCH_BOX(&forward_op<forward_cpu>));
}

}  // namespace ichfast
