// Stored values to area averages of h (see math/ct_window.h), an output row at a time.
#pragma once

#include <optional>
#include <vector>

#include "common/torch.h"
#include "math/ct_window.h"

namespace ichfast::ct_window {

template <class A>
struct Rescale {
  A slope, intercept;  // to h, see math/ct_window.h
  std::optional<A> padding;
};

// Which input cells an output cell covers, and what share of it each of them is.
template <class A>
struct Coverage {
  struct Covered {
    int64_t first, count;
    const A* weights;
  };

  Coverage(const Coverage&) = delete;  // the cells point into the weights
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

// Slope 1 and a whole intercept, as most CT has, of int16: clipping is done on the stored values
// themselves, and the sum of two h still fits into 16 bits. All of this is exact in float too, so
// the bits are the same.
struct Whole {
  int16_t low, high;  // what is clipped to
  bool has_padding;
  int16_t padding, air;
};

// What is the same for all rows. The tensor is asked once: each question is a call through the
// stable ABI, and a dozen for each row took as long as the pixels.
template <class A>
class AreaAverage {
 public:
  // Room for a row at each stage.
  struct Buffers {
    explicit Buffers(const AreaAverage& average);

    std::vector<A> loaded, sum, averaged;
    std::vector<uint16_t> pairs;
  };

  // Of (B, H, W) stored values, one rescale an image.
  AreaAverage(const Tensor& stored, int64_t out_height, int64_t out_width,
              const std::vector<Rescale<A>>& rescales);

  // Output row y of image b; lies in `buffers`.
  const A* row(int64_t b, int64_t y, Buffers& buffers) const;

  // Whether the rows of image b can hold no NaN: integers, rescaled by finite numbers.
  bool no_nan(int64_t b) const { return images_[b].no_nan; }

 private:
  struct Image {
    Rescale<A> rescale;
    std::optional<Whole> whole;
    bool no_nan;
  };

  const void* data_;
  ScalarType dtype_;
  int64_t image_, row_, column_;  // strides
  int64_t width_;
  Coverage<A> rows_, columns_;
  std::vector<Image> images_;
};

}  // namespace ichfast::ct_window
