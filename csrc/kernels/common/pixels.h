// Channels-last tensors in kernels: which thread takes which channels of which pixels.
//
// A thread keeps a group of neighbouring channels, as many as make 16 bytes, and goes from pixel to
// pixel: so what belongs to its channels stays in registers. It follows from the shape and the
// dtype alone; where the address or the number of channels does not allow vectors, the same thread
// takes the same channels one by one.
#pragma once

#include "kernels/common/rows.h"

namespace ichfast {

// Pixels `stride` elements apart, whose channels are neighbours.
template <class T>
struct Pixels {
  T* data;
  int64_t stride;
};

// Neighbouring channels of a pixel.
template <class T, int N>
struct Elements {
  T elements[N];

  template <class A>
  ICHFAST_DEVICE A get(int k) const {
    return widen<A>(elements[k]);
  }
  template <class A>
  ICHFAST_DEVICE void set(int k, A value) {
    narrow(value, &elements[k]);
  }
};

// Units (pixels, or windows of them) of each thread.
constexpr int kUnits = 16;

template <int kWidth, int kThreads>
struct PixelGrid {
  int64_t channels, units;

  ICHFAST_HD int64_t groups() const { return (channels + kWidth - 1) / kWidth; }
  // Of a block, side by side; and how many units it takes at a time.
  ICHFAST_HD int64_t in_block() const { return groups() < kThreads ? groups() : kThreads; }
  ICHFAST_HD int64_t lanes() const { return kThreads / in_block(); }
  // Blocks that share a chunk of units.
  ICHFAST_HD int64_t columns() const { return (groups() + kThreads - 1) / kThreads; }
  ICHFAST_HD int64_t per_chunk() const { return lanes() * kUnits; }
  ICHFAST_HD int64_t chunks() const {
    return channels == 0 ? 0 : (units + per_chunk() - 1) / per_chunk();
  }
  ICHFAST_HD int64_t blocks() const { return channels == 0 ? 0 : chunks() * columns(); }
};

// What the calling thread takes.
template <int kWidth, int kThreads>
class PixelThread {
 public:
  int64_t chunk;
  int64_t channel;  // the first
  int count;        // of its channels that there are; 0 for a thread without work

  ICHFAST_DEVICE explicit PixelThread(const PixelGrid<kWidth, kThreads>& grid)
      : chunk(blockIdx.x / uint32_t(grid.columns())), lanes_(uint32_t(grid.lanes())) {
    const uint32_t in_block = uint32_t(grid.in_block()), lane = threadIdx.x / in_block;
    const int64_t column = blockIdx.x % uint32_t(grid.columns());
    channel = (column * kThreads + threadIdx.x % in_block) * kWidth;
    const int64_t left = lane < lanes_ ? grid.channels - channel : 0;
    count = left < 0 ? 0 : left < kWidth ? int(left) : kWidth;
    first_ = chunk * grid.per_chunk() + lane;
    stop_ = (chunk + 1) * grid.per_chunk();
    if (stop_ > grid.units) stop_ = grid.units;
  }

  // A part of one, for its loads and stores.
  ICHFAST_DEVICE explicit PixelThread(int64_t its_channel)
      : chunk(0), channel(its_channel), count(1), lanes_(0), first_(0), stop_(0) {}

  // Whether the thread's channels can be one vector in each of these.
  template <class... P>
  ICHFAST_DEVICE bool allows_vectors(const P&... pixels) const {
    return count == kWidth &&
           ((pixels.stride % kWidth == 0 && aligned<kWidth>(pixels.data + channel)) && ...);
  }

  // Calls body(unit) for each of its units. kUnroll of them have no test in between, so that their
  // loads are in flight at once.
  template <int kUnroll, class Body>
  ICHFAST_DEVICE void for_each_unit(const Body& body) const {
    static_assert(kUnits % kUnroll == 0);
    if (count == 0) return;
    if (kUnroll > 1 && first_ + (kUnits - 1) * lanes_ < stop_) {
#pragma unroll 1
      for (int s = 0; s < kUnits; s += kUnroll) {
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) body(first_ + (s + u) * lanes_);
      }
    } else {
#pragma unroll 1
      for (int64_t unit = first_; unit < stop_; unit += lanes_) body(unit);
    }
  }

  // Calls body(part, first) with itself and 0, or, without vectors, for each of its channels with
  // one that has this channel alone and the channel's position: what body loads takes a channel's
  // registers then, and not those of all.
  template <bool kVector, class Body>
  ICHFAST_DEVICE void for_each_part(const Body& body) const {
    if constexpr (kVector) {
      body(*this, 0);
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k)
        if (k < count) body(PixelThread<1, kThreads>(channel + k), k);
    }
  }

  // Its channels of a pixel, as they lie: of a half type that is half as many registers.
  template <bool kVector, class T>
  ICHFAST_DEVICE Elements<T, kWidth> load(const Pixels<const T>& pixels, int64_t pixel) const {
    const T* const at = pixels.data + pixel * pixels.stride + channel;
    Elements<T, kWidth> result = {};
    if constexpr (kVector) {
      const auto word = load_word<typename Pieces<T, kWidth>::Word>(at);
      std::memcpy(result.elements, &word, sizeof word);
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        if (k >= count) continue;
        const auto word = load_word<typename Pieces<T, 1>::Word>(at + k);
        std::memcpy(&result.elements[k], &word, sizeof word);
      }
    }
    return result;
  }

  template <bool kVector, class T>
  ICHFAST_DEVICE void store(const Pixels<T>& pixels, int64_t pixel,
                            const Elements<T, kWidth>& values) const {
    T* const at = pixels.data + pixel * pixels.stride + channel;
    if constexpr (kVector) {
      typename Pieces<T, kWidth>::Word word;
      std::memcpy(&word, values.elements, sizeof word);
      store_word(at, word);
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        if (k >= count) continue;
        typename Pieces<T, 1>::Word word;
        std::memcpy(&word, &values.elements[k], sizeof word);
        store_word(at + k, word);
      }
    }
  }

  // Its channels of an array of a number for each.
  template <class A, class T>
  ICHFAST_DEVICE Values<A, kWidth> numbers(const T* array) const {
    Values<A, kWidth> result = {};
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      if (k < count) load_vector<1>(array + channel + k, result.values + k);
    return result;
  }

 private:
  uint32_t lanes_;
  int64_t first_, stop_;
};

}  // namespace ichfast
