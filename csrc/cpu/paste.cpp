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
constexpr int64_t kVector = 16;    // floats of the widest vectors

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

// r of n pixels, as numbers and as bytes.
template <class A>
ICHFAST_INLINE void choose_row(const uint8_t* region, const A* image, A low, A high, int64_t n,
                               A* r, uint8_t* is_chosen) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const bool is = chosen(region[i] != 0, image[i], low, high);
    r[i] = is ? A(1) : A(0);
    is_chosen[i] = is;
  }
}

ICHFAST_SIMD void choose(const uint8_t* region, const float* image, float low, float high,
                         int64_t n, float* r, uint8_t* is_chosen) {
  choose_row(region, image, low, high, n, r, is_chosen);
}
void choose(const uint8_t* region, const double* image, double low, double high, int64_t n,
            double* r, uint8_t* is_chosen) {
  choose_row(region, image, low, high, n, r, is_chosen);
}

// n numbers, each the weighted sum of those up to `reach` steps of `stride` away.
template <class A>
ICHFAST_INLINE void blur_row(const Blur<A>& blur, const A* in, int64_t stride, int64_t n, A* out) {
  const A middle = blur.weights[0];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = middle * in[i];
  for (int k = 1; k <= blur.reach; ++k) {
    const A weight = blur.weights[k];
    const A* const before = in - k * stride;
    const A* const after = in + k * stride;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] += weight * (before[i] + after[i]);
  }
}

ICHFAST_SIMD void blur_all(const Blur<float>& blur, const float* in, int64_t stride, int64_t n,
                           float* out) {
  blur_row(blur, in, stride, n, out);
}
void blur_all(const Blur<double>& blur, const double* in, int64_t stride, int64_t n, double* out) {
  blur_row(blur, in, stride, n, out);
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

// Of a target, the bytes of an element are all that matters.
template <class Word>
ICHFAST_INLINE void replace_row(const uint8_t* is_chosen, const void* source, int64_t n,
                                void* target) {
  const Word* const from = static_cast<const Word*>(source);
  Word* const to = static_cast<Word*>(target);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = is_chosen[i] != 0 ? from[i] : to[i];
}

ICHFAST_SIMD void replace_bytes(const uint8_t* is_chosen, const void* source, int64_t n,
                                void* target) {
  replace_row<uint8_t>(is_chosen, source, n, target);
}

void replace_where(const uint8_t* is_chosen, const void* source, int64_t bytes, int64_t n,
                   void* target) {
  const auto replace = bytes == 1   ? replace_bytes
                       : bytes == 2 ? replace_row<uint16_t>
                       : bytes == 4 ? replace_row<uint32_t>
                                    : replace_row<uint64_t>;
  replace(is_chosen, source, n, target);
}

template <int kBytes>
bool all_zero(const uint8_t* bytes) {
  uint64_t words[kBytes / 8], any = 0;
  std::memcpy(words, bytes, sizeof words);
  for (const uint64_t word : words) any |= word;
  return any == 0;
}

// How many of n bytes come before the first that is not 0, all if none is.
int64_t count_zeros(const uint8_t* bytes, int64_t n) {
  int64_t i = 0;
  while (i + 64 <= n && all_zero<64>(bytes + i)) i += 64;
  while (i + 8 <= n && all_zero<8>(bytes + i)) i += 8;
  while (i < n && bytes[i] == 0) ++i;
  return i;
}

// How many are left without the zeros at their end.
int64_t strip_zeros(const uint8_t* bytes, int64_t n) {
  while (n >= 64 && all_zero<64>(bytes + n - 64)) n -= 64;
  while (n >= 8 && all_zero<8>(bytes + n - 8)) n -= 8;
  while (n > 0 && bytes[n - 1] == 0) --n;
  return n;
}

// The smallest box around the region within rows [top, bottom).
std::optional<Box> find_box(const uint8_t* region, int64_t width, int64_t top, int64_t bottom) {
  std::optional<Box> box;
  for (int64_t y = top; y < bottom; ++y) {
    const uint8_t* const row = region + y * width;
    const int64_t left = count_zeros(row, width);
    if (left == width) continue;
    const int64_t right = strip_zeros(row, width);
    if (!box) box = Box{y, y, left, right};
    *box = {box->top, y + 1, std::min(box->left, left), std::max(box->right, right)};
  }
  return box;
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

// Columns [from, from + n) of the strip. What lies in buffers is made in whole vectors: of the few
// columns that a lesion has, most would be left over otherwise.
template <class A>
void paste_columns(const Batch<A>& batch, int64_t b, int64_t top, int64_t bottom, const Box& box,
                   int64_t from, int64_t n) {
  const Blur<A>& blur = batch.blurs[b];
  const int64_t reach = blur.reach, width = batch.width, whole = (n + kVector - 1) & -kVector;
  const int64_t first = std::max(top, box.top - reach), last = std::min(bottom, box.bottom + reach);
  const ScalarType dtype = batch.image.dtype;
  A along[kPaddedRows * kColumns];  // r blurred along the rows, from row first − reach on
  A image_buffer[kPaddedColumns], source_buffer[kColumns], a[kColumns], mixed[kColumns];
  for (int64_t y = first - reach; y < last + reach; ++y) {
    A* const blurred = along + (y - first + reach) * kColumns;
    if (y < box.top || y >= box.bottom) {
      std::fill_n(blurred, whole, A(0));
      continue;
    }
    A r[kPaddedColumns] = {};  // from column from − reach on
    uint8_t is_chosen[kPaddedColumns] = {};
    const int64_t left = std::max<int64_t>(0, from - reach);
    const int64_t right = std::min(width, from + n + reach), skipped = left - (from - reach);
    const int64_t pixel = y * width + left;
    const A* const image = load(dtype, batch.image.at(b, pixel), 0, 1, right - left, image_buffer);
    choose(reinterpret_cast<const uint8_t*>(batch.region.at(b, pixel)), image, batch.low,
           batch.high, right - left, r + skipped, is_chosen + skipped);
    blur_all(blur, r + reach, 1, whole, blurred);
    if (batch.targets && y >= top && y < bottom) {
      const Targets& targets = *batch.targets;
      replace_where(is_chosen + reach, targets.source.at(b, y * width + from), targets.source.bytes,
                    n, targets.out.at(b, y * width + from));
    }
  }
  for (int64_t y = first; y < last; ++y) {
    blur_all(blur, along + (y - first + reach) * kColumns, kColumns, whole, a);
    const int64_t pixel = y * width + from;
    const bool direct = dtype == (sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float);
    A* const out = direct ? reinterpret_cast<A*>(batch.out.at(b, pixel)) : mixed;
    mix_all(load(dtype, batch.image.at(b, pixel), 0, 1, n, image_buffer),
            load(dtype, batch.source.at(b, pixel), 0, 1, n, source_buffer), a, n, out);
    if (!direct) store(dtype, batch.out.at(b, pixel), 0, 1, n, mixed);
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
