// The attention-masked MSE on the CPU. Forward leaves three sums per image; backward reads the
// inputs once more and recomputes the rest. See math/attention_wmse.h for the derivation.
#include "ops/attention_wmse.h"

#include <array>
#include <optional>
#include <vector>

#include "cpu/common/parallel.h"
#include "cpu/common/simd.h"

namespace ichfast {
namespace {

using namespace attention_wmse;

template <class A>
struct Inputs {  // passed by value: read through a reference, the pointers would keep loops scalar
  const A *image, *logits, *background, *foreground;
};

template <Balance kBalance, bool kSigmoid, class A>
ICHFAST_INLINE void sum_tile(const Inputs<A> in, int64_t n, A* sums) {
  A mask = 0, background = 0, foreground = 0;
#pragma omp simd reduction(+ : mask, background, foreground)
  for (int64_t i = 0; i < n; ++i) {
    const auto v = voxel(in.image[i], in.logits[i], in.background[i], in.foreground[i], kSigmoid);
    add<kBalance>(v, mask, background, foreground);
  }
  sums[kMask] = mask;
  sums[kBackground] = background;
  sums[kForeground] = foreground;
}

template <Balance kBalance, class A>
ICHFAST_INLINE void sum_tile(const Inputs<A>& in, bool sigmoid_r, int64_t n, A* sums) {
  sigmoid_r ? sum_tile<kBalance, true>(in, n, sums) : sum_tile<kBalance, false>(in, n, sums);
}

ICHFAST_SIMD void sum(const Inputs<float>& in, Form form, int64_t n, float* sums) {
  form.balance == Balance::kPaper ? sum_tile<Balance::kPaper>(in, form.sigmoid_r, n, sums)
                                  : sum_tile<Balance::kRegion>(in, form.sigmoid_r, n, sums);
}

void sum(const Inputs<double>& in, Form form, int64_t n, double* sums) {
  form.balance == Balance::kPaper ? sum_tile<Balance::kPaper>(in, form.sigmoid_r, n, sums)
                                  : sum_tile<Balance::kRegion>(in, form.sigmoid_r, n, sums);
}

template <class A>
struct Outputs {
  A *logits, *background, *foreground;  // null where not asked for, the last two together
};

template <Balance kBalance, bool kSigmoid, bool kLogits, bool kReconstruction, class A>
ICHFAST_INLINE void grad_tile(const Inputs<A> in, const Scale<A> s, int64_t n,
                              const Outputs<A> out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const auto v = voxel(in.image[i], in.logits[i], in.background[i], in.foreground[i], kSigmoid);
    if constexpr (kReconstruction) {
      out.background[i] = grad_background<kBalance>(v, s, kSigmoid);
      out.foreground[i] = grad_foreground<kBalance>(v, s, kSigmoid);
    }
    if constexpr (kLogits) out.logits[i] = grad_logit<kBalance>(in.image[i], v, s);
  }
}

template <Balance kBalance, bool kSigmoid, class A>
ICHFAST_INLINE void grad_tile(const Inputs<A>& in, const Scale<A>& s, int64_t n,
                              const Outputs<A>& out) {
  if (out.logits && out.background)
    grad_tile<kBalance, kSigmoid, true, true>(in, s, n, out);
  else if (out.logits)
    grad_tile<kBalance, kSigmoid, true, false>(in, s, n, out);
  else
    grad_tile<kBalance, kSigmoid, false, true>(in, s, n, out);
}

template <Balance kBalance, class A>
ICHFAST_INLINE void grad_tile(const Inputs<A>& in, const Scale<A>& s, bool sigmoid_r, int64_t n,
                              const Outputs<A>& out) {
  sigmoid_r ? grad_tile<kBalance, true>(in, s, n, out) : grad_tile<kBalance, false>(in, s, n, out);
}

ICHFAST_SIMD void grad(const Inputs<float>& in, const Scale<float>& s, Form form, int64_t n,
                       const Outputs<float>& out) {
  form.balance == Balance::kPaper ? grad_tile<Balance::kPaper>(in, s, form.sigmoid_r, n, out)
                                  : grad_tile<Balance::kRegion>(in, s, form.sigmoid_r, n, out);
}

void grad(const Inputs<double>& in, const Scale<double>& s, Form form, int64_t n,
          const Outputs<double>& out) {
  form.balance == Balance::kPaper ? grad_tile<Balance::kPaper>(in, s, form.sigmoid_r, n, out)
                                  : grad_tile<Balance::kRegion>(in, s, form.sigmoid_r, n, out);
}

// The tiles of image, logits and both reconstructions at one place.
template <class A>
class Reader {
 public:
  explicit Reader(const Arguments& arguments)
      : image_(arguments.image),
        logits_(arguments.logits),
        reconstruction_(arguments.reconstruction) {}

  Inputs<A> read(const Tile& tile, A (*buffer)[kTile]) const {
    return {image_.read(tile, buffer[0]), logits_.read(tile, buffer[1]),
            reconstruction_.read(tile, 0, buffer[2]), reconstruction_.read(tile, 1, buffer[3])};
  }

 private:
  Source<A> image_, logits_, reconstruction_;
};

template <class A>
void forward(const Arguments& arguments, Tensor& loss_out, Tensor& sums_out) {
  const Reader<A> reader(arguments);
  const int64_t images = arguments.image.size(0);
  double* const sums = sums_out.mutable_data_ptr<double>();
  sum_rows(Chunks(arguments.image), images, sums, [&](const Tile& tile) {
    A buffer[4][kTile];
    std::array<A, kSums> result;
    sum(reader.read(tile, buffer), arguments.form, tile.n, result.data());
    return result;
  });
  A* const out = loss_out.mutable_data_ptr<A>();
  const double n_voxels = double(voxels(arguments.image));
  for (int64_t b = 0; b < images; ++b)
    out[b] = A(loss(arguments.form.balance, sums + b * kSums, n_voxels).value);
}

template <class A>
void backward(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
              Tensor* grad_logits, Tensor* grad_reconstruction) {
  const Reader<A> reader(arguments);
  const auto sink_of = [](Tensor* tensor) {
    return tensor ? std::optional<Sink<A>>(*tensor) : std::nullopt;
  };
  const auto z_sink = sink_of(grad_logits), r_sink = sink_of(grad_reconstruction);
  if (!z_sink && !r_sink) return;
  const double n_voxels = double(voxels(arguments.image));
  const std::vector<double> grads = read_numbers(grad_loss);
  std::vector<Scale<A>> scales;
  for (int64_t b = 0; b < arguments.image.size(0); ++b) {
    const Balance balance = arguments.form.balance;
    const auto l = loss(balance, sums.const_data_ptr<double>() + b * kSums, n_voxels);
    const auto s = scale(balance, l, grads[b], n_voxels);
    scales.push_back({A(s.background), A(s.foreground), A(s.area)});
  }
  Chunks(arguments.image).for_each_tile([&](const Tile& tile) {
    A in[4][kTile], out[3][kTile];
    const Outputs<A> places{z_sink ? z_sink->place(tile, out[0]) : nullptr,
                            r_sink ? r_sink->place(tile, 0, out[1]) : nullptr,
                            r_sink ? r_sink->place(tile, 1, out[2]) : nullptr};
    grad(reader.read(tile, in), scales[tile.image], arguments.form, tile.n, places);
    if (z_sink) z_sink->put(tile, places.logits);
    if (r_sink) {
      r_sink->put(tile, 0, places.background);
      r_sink->put(tile, 1, places.foreground);
    }
  });
}

void forward_cpu(const Arguments& arguments, Tensor& loss, Tensor& sums) {
  (arguments.in_double() ? forward<double> : forward<float>)(arguments, loss, sums);
}

void backward_cpu(const Arguments& arguments, const Tensor& grad_loss, const Tensor& sums,
                  Tensor* grad_logits, Tensor* grad_reconstruction) {
  (arguments.in_double() ? backward<double> : backward<float>)(arguments, grad_loss, sums,
                                                               grad_logits, grad_reconstruction);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ichfast, CPU, m) {
  m.impl("attention_wmse", TORCH_BOX(&forward_op<forward_cpu>));
  m.impl("attention_wmse_backward", TORCH_BOX(&backward_op<backward_cpu>));
}

}  // namespace ichfast
