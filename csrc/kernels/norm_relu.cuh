// Batch normalisation with ReLU and 2×2 max-pooling of channels-last images. What goes over all
// pixels of a channel goes in two stages: chunks leave their sums in slots, which a second kernel
// adds up. See math/norm_relu.h.
#pragma once

#include <limits>

#include "kernels/common/pixels.h"
#include "math/norm_relu.h"
#include "math/sigmoid.h"

namespace ichfast::norm_relu {

// Of each channel, as they lie.
template <class A>
struct Parameters {
  const A *weight, *bias, *mean, *variance;
  A eps;
};

// The calling thread's channels.
template <class A, int kWidth>
struct ThreadChannels {
  Values<A, kWidth> mean, scale, bias;

  template <class Thread>
  ICHFAST_DEVICE ThreadChannels(const Thread& mine, const Parameters<A>& p)
      : mean(mine.template numbers<A>(p.mean)),
        scale(mine.template numbers<A>(p.weight)),
        bias(mine.template numbers<A>(p.bias)) {
    const auto variance = mine.template numbers<A>(p.variance);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) scale[k] *= inverse_deviation(variance[k], p.eps);
  }

  ICHFAST_DEVICE A z(A x, int k) const { return normalised(x, mean[k], scale[k], bias[k]); }

  ICHFAST_DEVICE Window<A> relu_window(const Window<A>& x, int k) const {
    return {relu(z(x.a, k)), relu(z(x.b, k)), relu(z(x.c, k)), relu(z(x.d, k))};
  }
};

template <class A, int kWidth>
struct ThreadGradient {
  Values<A, kWidth> shift, slope;

  template <class Thread>
  ICHFAST_DEVICE ThreadGradient(const Thread& mine, const Parameters<A>& p, const double* sums,
                                int64_t channels, A count) {
    const auto weight = mine.template numbers<A>(p.weight);
    const auto variance = mine.template numbers<A>(p.variance);
    const auto sum = mine.template numbers<A>(sums);
    const auto with_x = mine.template numbers<A>(sums + channels);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const A inverse = inverse_deviation(variance[k], p.eps);
      const Gradient<A> g = gradient(sum[k], with_x[k], weight[k], inverse, count);
      shift[k] = g.shift;
      slope[k] = g.slope;
    }
  }
};

template <class T>
constexpr int kChannels = kVoxelsOf<T>;  // of a thread

template <class T, int kThreads>
using Grid = PixelGrid<kChannels<T>, kThreads>;

// Where a window's four pixels lie, in images of this width.
struct Corners {
  int64_t a, b, c, d;

  ICHFAST_DEVICE Corners(int64_t window, int64_t width) {
    const int64_t half = width / 2;
    a = window / half * 2 * width + window % half * 2;
    b = a + 1;
    c = a + width;
    d = c + 1;
  }
};

// The channels of a window's pixels.
template <class T, int kWidth>
struct WindowElements {
  Elements<T, kWidth> a, b, c, d;

  template <class A>
  ICHFAST_DEVICE Window<A> get(int k) const {
    return {a.template get<A>(k), b.template get<A>(k), c.template get<A>(k), d.template get<A>(k)};
  }
  template <class A>
  ICHFAST_DEVICE void set(int k, const Window<A>& values) {
    a.set(k, values.a);
    b.set(k, values.b);
    c.set(k, values.c);
    d.set(k, values.d);
  }
};

// Of a part: all channels of a thread, or one.
template <class T, int kWidth, int kThreads>
ICHFAST_DEVICE WindowElements<T, kWidth> load_window(const PixelThread<kWidth, kThreads>& part,
                                                     const Pixels<const T>& pixels,
                                                     const Corners& at) {
  return {part.template load<true>(pixels, at.a), part.template load<true>(pixels, at.b),
          part.template load<true>(pixels, at.c), part.template load<true>(pixels, at.d)};
}

template <class T, int kWidth, int kThreads>
ICHFAST_DEVICE void store_window(const PixelThread<kWidth, kThreads>& part, const Pixels<T>& pixels,
                                 const Corners& at, const WindowElements<T, kWidth>& values) {
  part.template store<true>(pixels, at.a, values.a);
  part.template store<true>(pixels, at.b, values.b);
  part.template store<true>(pixels, at.c, values.c);
  part.template store<true>(pixels, at.d, values.d);
}

// Blocks that share a multiprocessor at least: where nothing is said, the compiler aims at more and
// spills registers. Two keep 32 KiB of loads in flight.
constexpr int kBlocks = 2;

// ---- moments

// 1/n for the few values of a thread: the reciprocal of math/sigmoid.h, since the branches of a
// division would keep the loads of one pixel from overtaking the arithmetic of another; and a step
// of Newton's, which rounds it as a division does.
template <class A>
ICHFAST_DEVICE A inverse(A n) {
  const A r = reciprocal(n);
  return std::fma(std::fma(-n, r, A(1)), r, r);
}

// Stage one: mean and squared distances of each chunk's channels.
// 16-byte accesses: loads, since a block writes no more than its sums.
template <class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kBlocks)
    collect_moments(Pixels<const T> input, Grid<T, kThreads> grid, double* slots) {
  constexpr int kWidth = kChannels<T>;
  const PixelThread<kWidth, kThreads> mine(grid);
  Values<A, kWidth> means = {}, squares = {};
  A n = 0;
  const auto run = [&](auto vector) {
    constexpr bool kVector = decltype(vector)::value;
    mine.template for_each_unit<4>([&](int64_t pixel) {  // Welford 1962
      const auto x = mine.template load<kVector>(input, pixel);
      n += A(1);
      const A share = inverse(n);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const A value = x.template get<A>(k), distance = value - means[k];
        means[k] += distance * share;
        squares[k] += distance * (value - means[k]);
      }
    });
  };
  mine.allows_vectors(input) ? run(std::true_type()) : run(std::false_type());
  __shared__ A of_mean[kWidth][kThreads], of_squares[kWidth][kThreads];
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    of_mean[k][threadIdx.x] = means[k];
    of_squares[k][threadIdx.x] = squares[k];
  }
  __syncthreads();
  const int in_block = int(grid.in_block()), lanes = int(grid.lanes());
  const int64_t start = mine.chunk * grid.per_chunk(), left = grid.units - start;
  const int64_t first = mine.channel - int64_t(threadIdx.x % in_block) * kWidth;
  for (int i = threadIdx.x; i < in_block * kWidth; i += kThreads) {
    const int64_t channel = first + i;
    if (channel >= grid.channels) break;
    A mean = 0, square = 0, before = 0;
    for (int lane = 0; lane < lanes && lane < left; ++lane) {
      const int64_t units = (left - lane + lanes - 1) / lanes;
      const A more = A(units < kUnits ? units : kUnits);
      const int thread = lane * in_block + i / kWidth;
      Merge<A>(before, more)(of_mean[i % kWidth][thread], of_squares[i % kWidth][thread], mean,
                             square);
      before += more;
    }
    double* const slot = slots + mine.chunk * 2 * grid.channels + channel;
    slot[0] = double(mean);
    slot[grid.channels] = double(square);
  }
}

// Numbers that a block of the second stage makes, each with as many threads as are left: a sector
// of memory.
constexpr int kNumbers = 4;

// Stage two: of all chunks.
// 16-byte accesses: none, since it reads and writes sums.
template <class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    finish_moments(const double* slots, Grid<T, kThreads> grid, A* means, A* variances) {
  constexpr int kLanes = kThreads / kNumbers;
  const int64_t channel = int64_t(blockIdx.x) * kNumbers + threadIdx.x % kNumbers;
  const int lane = int(threadIdx.x) / kNumbers;
  double count = 0, mean = 0, squares = 0;
  const auto add = [&](double more, double more_mean, double more_squares) {
    if (more == 0) return;
    Merge<double>(count, more)(more_mean, more_squares, mean, squares);
    count += more;
  };
  if (channel < grid.channels) {
    for (int64_t chunk = lane; chunk < grid.chunks(); chunk += kLanes) {
      const int64_t left = grid.units - chunk * grid.per_chunk();
      const double* const slot = slots + chunk * 2 * grid.channels + channel;
      add(double(left < grid.per_chunk() ? left : grid.per_chunk()), slot[0], slot[grid.channels]);
    }
  }
  __shared__ double of_thread[3][kThreads];
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) {
    of_thread[0][threadIdx.x] = count;
    of_thread[1][threadIdx.x] = mean;
    of_thread[2][threadIdx.x] = squares;
    __syncthreads();
    const int other = int(threadIdx.x) + half * kNumbers;
    if (lane < half) add(of_thread[0][other], of_thread[1][other], of_thread[2][other]);
    __syncthreads();
  }
  if (lane == 0 && channel < grid.channels) {
    means[channel] = A(count > 0 ? mean : std::numeric_limits<double>::quiet_NaN());
    variances[channel] = A(squares / count);
  }
}

// ---- forward

template <bool kRelu, class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads) normalise(Pixels<const T> input, Grid<T, kThreads> grid,
                                                      Parameters<A> parameters, Pixels<T> output) {
  constexpr int kWidth = kChannels<T>;
  const PixelThread<kWidth, kThreads> mine(grid);
  const ThreadChannels<A, kWidth> p(mine, parameters);
  const auto run = [&](auto vector) {
    constexpr bool kVector = decltype(vector)::value;
    mine.template for_each_unit<4>([&](int64_t pixel) {
      auto x = mine.template load<kVector>(input, pixel);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const A z = p.z(x.template get<A>(k), k);
        x.set(k, kRelu ? relu(z) : z);
      }
      mine.template store<kVector>(output, pixel, x);
    });
  };
  mine.allows_vectors(input, output) ? run(std::true_type()) : run(std::false_type());
}

// What stands beside, as it is.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    copy_pixels(Pixels<const T> from, Grid<T, kThreads> grid, Pixels<T> to) {
  const PixelThread<kChannels<T>, kThreads> mine(grid);
  const auto run = [&](auto vector) {
    constexpr bool kVector = decltype(vector)::value;
    mine.template for_each_unit<4>([&](int64_t pixel) {
      mine.template store<kVector>(to, pixel, mine.template load<kVector>(from, pixel));
    });
  };
  mine.allows_vectors(from, to) ? run(std::true_type()) : run(std::false_type());
}

// The units are windows.
template <class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kBlocks)
    normalise_and_pool(Pixels<const T> input, Grid<T, kThreads> grid, Parameters<A> parameters,
                       int64_t width, Pixels<T> output, Pixels<T> pooled) {
  constexpr int kWidth = kChannels<T>;
  const PixelThread<kWidth, kThreads> mine(grid);
  const ThreadChannels<A, kWidth> p(mine, parameters);
  const auto run = [&](auto vector) {
    constexpr bool kVector = decltype(vector)::value;
    mine.template for_each_unit<1>([&](int64_t window) {
      const Corners at(window, width);
      mine.template for_each_part<kVector>(
          [&]<int kPart>(const PixelThread<kPart, kThreads>& part, int first) {
            auto xs = load_window(part, input, at);
            Elements<T, kPart> best;
#pragma unroll
            for (int k = 0; k < kPart; ++k) {
              const Window<A> y = p.relu_window(xs.template get<A>(k), first + k);
              xs.set(k, y);
              best.set(k, largest(y));
            }
            store_window(part, output, at, xs);
            part.template store<true>(pooled, window, best);
          });
    });
  };
  mine.allows_vectors(input, output, pooled) ? run(std::true_type()) : run(std::false_type());
}

// ---- backward

// Σg and Σg·(x − μ) of each channel over the threads of a block, into the chunk's slot.
template <class A, class T, int kThreads>
ICHFAST_DEVICE void leave_sums(const PixelThread<kChannels<T>, kThreads>& mine,
                               const Grid<T, kThreads>& grid, const Values<A, kChannels<T>>& sums,
                               const Values<A, kChannels<T>>& with_x, double* slots) {
  constexpr int kWidth = kChannels<T>;
  __shared__ A of_sums[2][kWidth][kThreads];
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    of_sums[0][k][threadIdx.x] = sums[k];
    of_sums[1][k][threadIdx.x] = with_x[k];
  }
  __syncthreads();
  const int in_block = int(grid.in_block()), lanes = int(grid.lanes());
  const int64_t first = mine.channel - int64_t(threadIdx.x % in_block) * kWidth;
  for (int i = threadIdx.x; i < 2 * in_block * kWidth; i += kThreads) {
    const int which = i / (in_block * kWidth), own = i % (in_block * kWidth);
    const int64_t channel = first + own;
    if (channel >= grid.channels) continue;
    double sum = 0;
    for (int lane = 0; lane < lanes; ++lane)
      sum += double(of_sums[which][own % kWidth][lane * in_block + own / kWidth]);
    slots[(mine.chunk * 2 + which) * grid.channels + channel] = sum;
  }
}

// Stage one.
// 16-byte accesses: loads, since a block writes no more than its sums.
template <bool kRelu, class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kBlocks)
    sum_pixels(Pixels<const T> grad, Pixels<const T> input, Grid<T, kThreads> grid,
               Parameters<A> parameters, double* slots) {
  constexpr int kWidth = kChannels<T>;
  const PixelThread<kWidth, kThreads> mine(grid);
  const ThreadChannels<A, kWidth> p(mine, parameters);
  Values<A, kWidth> sums = {}, with_x = {};
  const auto run = [&](auto vector) {
    constexpr bool kVector = decltype(vector)::value;
    mine.template for_each_unit<2>([&](int64_t pixel) {
      const auto xs = mine.template load<kVector>(input, pixel);
      const auto gs = mine.template load<kVector>(grad, pixel);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const A x = xs.template get<A>(k), arrived = gs.template get<A>(k);
        const A g = kRelu ? through_relu(p.z(x, k), arrived) : arrived;
        sums[k] += g;
        with_x[k] += g * (x - p.mean[k]);
      }
    });
  };
  mine.allows_vectors(grad, input) ? run(std::true_type()) : run(std::false_type());
  leave_sums<A, T, kThreads>(mine, grid, sums, with_x, slots);
}

// The gradient of z in a window: from that of the pooled value and from those of y, `more`.
template <class A, int kWidth>
ICHFAST_DEVICE Window<A> through_window(const ThreadChannels<A, kWidth>& p, const Window<A>& x,
                                        A of_pooled, const Window<A>& more, int k) {
  const Window<A> y = p.relu_window(x, k), r = route(y, of_pooled);
  return {through_relu(y.a, r.a + more.a), through_relu(y.b, r.b + more.b),
          through_relu(y.c, r.c + more.c), through_relu(y.d, r.d + more.d)};
}

// Those of y, or nothing.
template <bool kOutput, class T, int kWidth, int kThreads>
ICHFAST_DEVICE WindowElements<T, kWidth> load_output(const PixelThread<kWidth, kThreads>& part,
                                                     const Pixels<const T>& grad,
                                                     const Corners& at) {
  if constexpr (kOutput) {
    return load_window(part, grad, at);
  } else {
    return {};
  }
}

// Blocks of sum_windows that share a multiprocessor: where a thread loads the pooled gradient
// alone, one would keep 20 KiB in flight on an H100 or H200. On other architectures
// (7.5, 10.0, 12.0) two do not leave enough registers for half types.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 800 || __CUDA_ARCH__ >= 1000)
constexpr int kSummingBlocks = 1;
#else
constexpr int kSummingBlocks = 2;
#endif

// Stage one where the result was pooled; the units are windows.
// 16-byte accesses: loads, since a block writes no more than its sums.
template <bool kOutput, class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kOutput ? 1 : kSummingBlocks)
    sum_windows(Pixels<const T> grad, Pixels<const T> grad_pooled, Pixels<const T> input,
                Grid<T, kThreads> grid, Parameters<A> parameters, int64_t width, double* slots) {
  constexpr int kWidth = kChannels<T>;
  const PixelThread<kWidth, kThreads> mine(grid);
  const ThreadChannels<A, kWidth> p(mine, parameters);
  Values<A, kWidth> sums = {}, with_x = {};
  const auto run = [&](auto vector) {
    constexpr bool kVector = decltype(vector)::value;
    mine.template for_each_unit<1>([&](int64_t window) {
      const Corners at(window, width);
      mine.template for_each_part<kVector>(
          [&]<int kPart>(const PixelThread<kPart, kThreads>& part, int first) {
            const auto xs = load_window(part, input, at);
            const auto more = load_output<kOutput>(part, grad, at);
            const auto of_pooled = part.template load<true>(grad_pooled, window);
#pragma unroll
            for (int k = 0; k < kPart; ++k) {
              const int own = first + k;
              const Window<A> x = xs.template get<A>(k);
              const Window<A> g =
                  through_window(p, x, of_pooled.template get<A>(k), more.template get<A>(k), own);
              sums[own] += (g.a + g.b) + (g.c + g.d);
              with_x[own] += (g.a * (x.a - p.mean[own]) + g.b * (x.b - p.mean[own])) +
                             (g.c * (x.c - p.mean[own]) + g.d * (x.d - p.mean[own]));
            }
          });
    });
  };
  const bool vectors =
      mine.allows_vectors(input, grad_pooled) && (!kOutput || mine.allows_vectors(grad));
  vectors ? run(std::true_type()) : run(std::false_type());
  leave_sums<A, T, kThreads>(mine, grid, sums, with_x, slots);
}

// Stage two: Σg and Σg·x̂ over all chunks.
// 16-byte accesses: none, since it reads and writes sums.
template <class A, int kThreads>
__global__ void __launch_bounds__(kThreads)
    finish_sums(const double* slots, int64_t chunks, int64_t channels, const A* variance, A eps,
                double* sums) {
  constexpr int kLanes = kThreads / kNumbers;
  const int64_t number = int64_t(blockIdx.x) * kNumbers + threadIdx.x % kNumbers;
  const int lane = int(threadIdx.x) / kNumbers;
  double sum = 0;
  if (number < 2 * channels)
    for (int64_t chunk = lane; chunk < chunks; chunk += kLanes)
      sum += slots[chunk * 2 * channels + number];
  __shared__ double of_thread[kThreads];
#pragma unroll
  for (int half = kLanes / 2; half > 0; half /= 2) {
    of_thread[threadIdx.x] = sum;
    __syncthreads();
    if (lane < half) sum += of_thread[threadIdx.x + half * kNumbers];
    __syncthreads();
  }
  if (lane > 0 || number >= 2 * channels) return;
  // Without pixels there is no deviation, and both sums are 0.
  const bool with_x = number >= channels && chunks > 0;
  sums[number] = with_x ? sum * double(inverse_deviation(variance[number - channels], eps)) : sum;
}

// kBatch: the statistics are those of the batch.
template <bool kRelu, bool kBatch, class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, kBlocks)
    differentiate_pixels(Pixels<const T> grad, Pixels<const T> input, Grid<T, kThreads> grid,
                         Parameters<A> parameters, const double* sums, Pixels<T> grad_input) {
  constexpr int kWidth = kChannels<T>;
  const PixelThread<kWidth, kThreads> mine(grid);
  const ThreadChannels<A, kWidth> p(mine, parameters);
  const auto run = [&](auto vector, const auto& finish) {
    constexpr bool kVector = decltype(vector)::value;
    mine.template for_each_unit<2>([&](int64_t pixel) {
      const auto xs = mine.template load<kVector>(input, pixel);
      auto gs = mine.template load<kVector>(grad, pixel);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const A x = xs.template get<A>(k), arrived = gs.template get<A>(k);
        gs.set(k, finish(x, kRelu ? through_relu(p.z(x, k), arrived) : arrived, k));
      }
      mine.template store<kVector>(grad_input, pixel, gs);
    });
  };
  const auto run_both = [&](const auto& finish) {
    mine.allows_vectors(grad, input, grad_input) ? run(std::true_type(), finish)
                                                 : run(std::false_type(), finish);
  };
  if constexpr (kBatch) {
    const ThreadGradient<A, kWidth> through(mine, parameters, sums, grid.channels, A(grid.units));
    run_both([&](A x, A g, int k) {
      return p.scale[k] * g - through.shift[k] - (x - p.mean[k]) * through.slope[k];
    });
  } else {
    run_both([&](A, A g, int k) { return p.scale[k] * g; });
  }
}

// The same where the result was pooled; the units are windows.
template <bool kOutput, bool kBatch, class A, class T, int kThreads>
__global__ void __launch_bounds__(kThreads, 1)
    differentiate_windows(Pixels<const T> grad, Pixels<const T> grad_pooled, Pixels<const T> input,
                          Grid<T, kThreads> grid, Parameters<A> parameters, int64_t width,
                          const double* sums, Pixels<T> grad_input) {
  constexpr int kWidth = kChannels<T>;
  const PixelThread<kWidth, kThreads> mine(grid);
  const ThreadChannels<A, kWidth> p(mine, parameters);
  const auto run = [&](auto vector, const auto& finish) {
    constexpr bool kVector = decltype(vector)::value;
    mine.template for_each_unit<1>([&](int64_t window) {
      const Corners at(window, width);
      mine.template for_each_part<kVector>(
          [&]<int kPart>(const PixelThread<kPart, kThreads>& part, int first) {
            auto xs = load_window(part, input, at);
            const auto more = load_output<kOutput>(part, grad, at);
            const auto of_pooled = part.template load<true>(grad_pooled, window);
#pragma unroll
            for (int k = 0; k < kPart; ++k) {
              const int own = first + k;
              const Window<A> x = xs.template get<A>(k);
              const Window<A> g =
                  through_window(p, x, of_pooled.template get<A>(k), more.template get<A>(k), own);
              xs.set(k, Window<A>{finish(x.a, g.a, own), finish(x.b, g.b, own),
                                  finish(x.c, g.c, own), finish(x.d, g.d, own)});
            }
            store_window(part, grad_input, at, xs);
          });
    });
  };
  const auto run_both = [&](const auto& finish) {
    const bool vectors = mine.allows_vectors(input, grad_pooled, grad_input) &&
                         (!kOutput || mine.allows_vectors(grad));
    vectors ? run(std::true_type(), finish) : run(std::false_type(), finish);
  };
  if constexpr (kBatch) {
    const ThreadGradient<A, kWidth> through(mine, parameters, sums, grid.channels,
                                            A(4 * grid.units));
    run_both([&](A x, A g, int k) {
      return p.scale[k] * g - through.shift[k] - (x - p.mean[k]) * through.slope[k];
    });
  } else {
    run_both([&](A, A g, int k) { return p.scale[k] * g; });
  }
}

// ---- in which order they run

// Pixels of all images, and how wide these are.
struct Shape {
  int64_t channels, pixels, width;
};

template <class T, class Launch>
Grid<T, Launch::kThreads> grid_of(const Shape& shape, bool pooled) {
  return {shape.channels, pooled ? shape.pixels / 4 : shape.pixels};
}

// Doubles that moments and sums need for their first stage.
template <class T, class Launch>
int64_t slots(const Shape& shape, bool pooled) {
  return grid_of<T, Launch>(shape, pooled).chunks() * 2 * shape.channels;
}

inline int64_t finishing_blocks(int64_t numbers) {
  return (numbers + kNumbers - 1) / kNumbers;
}

template <class A, class T, class Launch>
void moments(const Launch& launch, Pixels<const T> input, const Shape& shape, double* slots,
             A* means, A* variances) {
  constexpr int kThreads = Launch::kThreads;
  const auto grid = grid_of<T, Launch>(shape, false);
  launch(collect_moments<A, T, kThreads>, grid.blocks(), input, grid, slots);
  launch(finish_moments<A, T, kThreads>, finishing_blocks(shape.channels),
         static_cast<const double*>(slots), grid, means, variances);
}

template <bool kRelu, class A, class T, class Launch>
void forward(const Launch& launch, Pixels<const T> input, const Shape& shape,
             const Parameters<A>& parameters, Pixels<T> output) {
  constexpr int kThreads = Launch::kThreads;
  const auto grid = grid_of<T, Launch>(shape, false);
  launch(normalise<kRelu, A, T, kThreads>, grid.blocks(), input, grid, parameters, output);
}

template <class T, class Launch>
void copy(const Launch& launch, Pixels<const T> from, const Shape& shape, Pixels<T> to) {
  constexpr int kThreads = Launch::kThreads;
  const auto grid = grid_of<T, Launch>(shape, false);
  launch(copy_pixels<T, kThreads>, grid.blocks(), from, grid, to);
}

template <class A, class T, class Launch>
void forward_pool(const Launch& launch, Pixels<const T> input, const Shape& shape,
                  const Parameters<A>& parameters, Pixels<T> output, Pixels<T> pooled) {
  constexpr int kThreads = Launch::kThreads;
  const auto grid = grid_of<T, Launch>(shape, true);
  launch(normalise_and_pool<A, T, kThreads>, grid.blocks(), input, grid, parameters, shape.width,
         output, pooled);
}

// What arrives: `output` may be null where `pooled` is not.
template <class T>
struct GradientViews {
  Pixels<const T> output, pooled;
};

template <bool kRelu, class A, class T, class Launch>
void sums(const Launch& launch, const GradientViews<T>& gradients, Pixels<const T> input,
          const Shape& shape, const Parameters<A>& parameters, double* slots, double* results) {
  constexpr int kThreads = Launch::kThreads;
  const bool pooled = gradients.pooled.data;
  const auto grid = grid_of<T, Launch>(shape, pooled);
  if (!pooled) {
    launch(sum_pixels<kRelu, A, T, kThreads>, grid.blocks(), gradients.output, input, grid,
           parameters, slots);
  } else {
    const auto kernel = gradients.output.data ? sum_windows<true, A, T, kThreads>
                                              : sum_windows<false, A, T, kThreads>;
    launch(kernel, grid.blocks(), gradients.output, gradients.pooled, input, grid, parameters,
           shape.width, slots);
  }
  launch(finish_sums<A, kThreads>, finishing_blocks(2 * shape.channels),
         static_cast<const double*>(slots), grid.chunks(), shape.channels, parameters.variance,
         parameters.eps, results);
}

template <bool kRelu, bool kBatch, class A, class T, class Launch>
void backward(const Launch& launch, const GradientViews<T>& gradients, Pixels<const T> input,
              const Shape& shape, const Parameters<A>& parameters, const double* sums,
              Pixels<T> grad_input) {
  constexpr int kThreads = Launch::kThreads;
  const bool pooled = gradients.pooled.data;
  const auto grid = grid_of<T, Launch>(shape, pooled);
  if (!pooled) {
    launch(differentiate_pixels<kRelu, kBatch, A, T, kThreads>, grid.blocks(), gradients.output,
           input, grid, parameters, sums, grad_input);
  } else {
    const auto kernel = gradients.output.data
                            ? differentiate_windows<true, kBatch, A, T, kThreads>
                            : differentiate_windows<false, kBatch, A, T, kThreads>;
    launch(kernel, grid.blocks(), gradients.output, gradients.pooled, input, grid, parameters,
           shape.width, sums, grad_input);
  }
}

}  // namespace ichfast::norm_relu
