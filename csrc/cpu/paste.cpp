// Pasting on the CPU, strip after strip. See math/paste.h.
//
// A strip is copied as it is; then the pixels within reach of the region are made anew, of which
// there are few: r a row at a time, blurred along the row, then across the rows.
#include "ops/paste.h"

#include <cstring>
#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace paste;

constexpr int64_t kRows = 32;      // of a strip
constexpr int64_t kColumns = 128;  // that go through the loops together

// With what the blur reaches on either side.
constexpr int64_t kPaddedRows = kRows + 2 * kLargestReach;
constexpr int64_t kPaddedColumns = kColumns + 2 * kLargestReach;

template <class A>
struct Blur {
  int reach;
  A weights[kLargestReach + 1];
};

struct Box {
  int64_t top, bottom, left, right;
};

template <class A>
ICHFAST_INLINE void choose_row(const uint8_t* region, const A* image, A low, A high, int64_t n,
                               A* r) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) r[i] = chosen(region[i] != 0, image[i], low, high) ? A(1) : A(0);
}

ICHFAST_SIMD void choose(const uint8_t* region, const float* image, float low, float high,
                         int64_t n, float* r) {
  choose_row(region, image, low, high, n, r);
}
void choose(const uint8_t* region, const double* image, double low, double high, int64_t n,
            double* r) {
  choose_row(region, image, low, high, n, r);
}

template <class A>
ICHFAST_INLINE void scale_row(const A* in, A weight, int64_t n, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = weight * in[i];
}

ICHFAST_SIMD void scale(const float* in, float weight, int64_t n, float* out) {
  scale_row(in, weight, n, out);
}
void scale(const double* in, double weight, int64_t n, double* out) {
  scale_row(in, weight, n, out);
}

template <class A>
ICHFAST_INLINE void add_row(const A* one, const A* other, A weight, int64_t n, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] += weight * (one[i] + other[i]);
}

ICHFAST_SIMD void add(const float* one, const float* other, float weight, int64_t n, float* out) {
  add_row(one, other, weight, n, out);
}
void add(const double* one, const double* other, double weight, int64_t n, double* out) {
  add_row(one, other, weight, n, out);
}

template <class A>
ICHFAST_INLINE void mix_row(const A* image, const A* source, const A* a, int64_t n, A* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = mix(image[i], source[i], a[i]);
}

ICHFAST_SIMD void mix_all(const float* image, const float* source, const float* a, int64_t n,
                          float* out) {
  mix_row(image, source, a, n, out);
}
void mix_all(const double* image, const double* source, const double* a, int64_t n, double* out) {
  mix_row(image, source, a, n, out);
}

// n numbers, each the weighted sum of those up to `reach` steps of `stride` away.
template <class A>
void blur_row(const Blur<A>& blur, const A* in, int64_t stride, int64_t n, A* out) {
  scale(in, blur.weights[0], n, out);
  for (int k = 1; k <= blur.reach; ++k)
    add(in - k * stride, in + k * stride, blur.weights[k], n, out);
}

// Where the first byte that is not 0 lies, n if there is none.
int64_t find_first(const uint8_t* bytes, int64_t n) {
  int64_t i = 0;
  for (uint64_t word; i + 8 <= n; i += 8) {
    std::memcpy(&word, bytes + i, sizeof word);
    if (word != 0) break;
  }
  while (i < n && bytes[i] == 0) ++i;
  return i;
}

// The smallest box around the region within rows [top, bottom).
std::optional<Box> find_box(const uint8_t* region, int64_t width, int64_t top, int64_t bottom) {
  std::optional<Box> box;
  for (int64_t y = top; y < bottom; ++y) {
    const uint8_t* const row = region + y * width;
    const int64_t left = find_first(row, width);
    if (left == width) continue;
    int64_t right = width;
    while (row[right - 1] == 0) --right;
    if (!box) box = Box{y, y, left, right};
    *box = {box->top, y + 1, std::min(box->left, left), std::max(box->right, right)};
  }
  return box;
}

// Bytes of an element are all that matters where it is only moved.
template <class Word, class A>
void replace_words(const A* r, const void* source, int64_t n, void* target) {
  for (int64_t i = 0; i < n; ++i) {
    if (r[i] != 0)
      std::memcpy(static_cast<Word*>(target) + i, static_cast<const Word*>(source) + i,
                  sizeof(Word));
  }
}

template <class A>
void replace_where(const A* r, const void* source, int64_t bytes, int64_t n, void* target) {
  const auto replace = bytes == 1   ? replace_words<uint8_t, A>
                       : bytes == 2 ? replace_words<uint16_t, A>
                       : bytes == 4 ? replace_words<uint32_t, A>
                                    : replace_words<uint64_t, A>;
  replace(r, source, n, target);
}

// The images of a tensor, pixel i of which lies at byte i·bytes.
struct Images {
  explicit Images(const Tensor& tensor)
      : data(static_cast<const char*>(tensor.const_data_ptr())),
        dtype(tensor.scalar_type()),
        bytes(int64_t(tensor.element_size())),
        image(tensor.stride(0) * bytes) {}

  const char* at(int64_t b, int64_t pixel) const { return data + b * image + pixel * bytes; }

  const char* data;
  ScalarType dtype;
  int64_t bytes, image;
};

// Where results go, of the same elements.
struct Results {
  explicit Results(Tensor& tensor)
      : data(static_cast<char*>(tensor.mutable_data_ptr())), images(tensor) {}

  char* at(int64_t b, int64_t pixel) const { return data + (images.at(b, pixel) - images.data); }

  char* data;
  Images images;
};

struct Targets {
  Images target, source;
  Results out;
};

template <class A>
struct Batch {
  int64_t height, width;
  Images image, source, region;
  Results out;
  std::optional<Targets> targets;
  A low, high;
  std::vector<Blur<A>> blurs;  // one for each image
};

// Columns [from, from + n) of the strip.
template <class A>
void paste_columns(const Batch<A>& batch, int64_t b, int64_t top, int64_t bottom, const Box& box,
                   int64_t from, int64_t n) {
  const Blur<A>& blur = batch.blurs[b];
  const int64_t reach = blur.reach, width = batch.width;
  const int64_t first = std::max(top, box.top - reach), last = std::min(bottom, box.bottom + reach);
  A along[kPaddedRows * kColumns];  // r blurred along the rows, from row first − reach on
  A image_buffer[kPaddedColumns], source_buffer[kColumns], a[kColumns], mixed[kColumns];
  for (int64_t y = first - reach; y < last + reach; ++y) {
    A* const blurred = along + (y - first + reach) * kColumns;
    if (y < box.top || y >= box.bottom) {
      std::fill_n(blurred, n, A(0));
      continue;
    }
    A r[kPaddedColumns] = {};  // from column from − reach on
    const int64_t left = std::max<int64_t>(0, from - reach);
    const int64_t right = std::min(width, from + n + reach);
    const int64_t pixel = y * width + left;
    const A* const image =
        load(batch.image.dtype, batch.image.at(b, pixel), 0, 1, right - left, image_buffer);
    choose(reinterpret_cast<const uint8_t*>(batch.region.at(b, pixel)), image, batch.low,
           batch.high, right - left, r + (left - from + reach));
    blur_row(blur, r + reach, 1, n, blurred);
    if (batch.targets && y >= top && y < bottom) {
      const Targets& targets = *batch.targets;
      replace_where(r + reach, targets.source.at(b, y * width + from), targets.source.bytes, n,
                    targets.out.at(b, y * width + from));
    }
  }
  for (int64_t y = first; y < last; ++y) {
    blur_row(blur, along + (y - first + reach) * kColumns, kColumns, n, a);
    const int64_t pixel = y * width + from;
    const ScalarType dtype = batch.image.dtype;
    mix_all(load(dtype, batch.image.at(b, pixel), 0, 1, n, image_buffer),
            load(dtype, batch.source.at(b, pixel), 0, 1, n, source_buffer), a, n, mixed);
    store(dtype, batch.out.at(b, pixel), 0, 1, n, mixed);
  }
}

template <class A>
void paste_strip(const Batch<A>& batch, int64_t b, int64_t top, int64_t bottom) {
  const int64_t width = batch.width, reach = batch.blurs[b].reach;
  const auto copy = [&](const Images& from, const Results& to) {
    std::memcpy(to.at(b, top * width), from.at(b, top * width),
                (bottom - top) * width * from.bytes);
  };
  copy(batch.image, batch.out);
  if (batch.targets) copy(batch.targets->target, batch.targets->out);
  const std::optional<Box> box =
      find_box(reinterpret_cast<const uint8_t*>(batch.region.at(b, 0)), width,
               std::max<int64_t>(0, top - reach), std::min(batch.height, bottom + reach));
  if (!box) return;
  const int64_t right = std::min(width, box->right + reach);
  for (int64_t from = std::max<int64_t>(0, box->left - reach); from < right; from += kColumns)
    paste_columns(batch, b, top, bottom, *box, from, std::min(kColumns, right - from));
}

template <class A>
std::vector<Blur<A>> read_blurs(const Tensor& feather) {
  std::vector<Blur<A>> blurs;
  for (int64_t b = 0; b < feather.size(0); ++b) {
    const double sigma = number_at(feather, b * feather.stride(0));
    STD_TORCH_CHECK(valid_sigma(sigma), "paste: feather must be from 0 to ", kLargestSigma,
                    " pixels; got ", sigma);
    Blur<A> blur{reach(sigma), {}};
    const double sum = sum_of_weights(sigma);
    for (int k = 0; k <= blur.reach; ++k) blur.weights[k] = A(relative_weight(k, sigma) / sum);
    blurs.push_back(blur);
  }
  return blurs;
}

template <class A>
void forward(const Arguments& in, Tensor& image_out, Tensor& target_out) {
  Batch<A> batch{in.image.size(2),  in.image.size(3),         Images(in.image), Images(in.source),
                 Images(in.region), Results(image_out),       std::nullopt,     A(in.low),
                 A(in.high),        read_blurs<A>(in.feather)};
  if (in.target)
    batch.targets = {Images(*in.target), Images(*in.source_target), Results(target_out)};
  if (image_out.numel() == 0) return;
  const int64_t strips = (batch.height + kRows - 1) / kRows;
  const int64_t grain = std::max<int64_t>(1, kGrain / (kRows * batch.width));
  torch::stable::parallel_for(0, in.image.size(0) * strips, grain, [&](int64_t begin, int64_t end) {
    for (int64_t strip = begin; strip < end; ++strip) {
      const int64_t top = strip % strips * kRows;
      paste_strip(batch, strip / strips, top, std::min(top + kRows, batch.height));
    }
  });
}

void forward_cpu(const Arguments& arguments, Tensor& image, Tensor& target) {
  (is_double(arguments.image) ? forward<double> : forward<float>)(arguments, image, target);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("paste", TORCH_BOX(&forward_op<forward_cpu>));
}

}  // namespace ichfast
