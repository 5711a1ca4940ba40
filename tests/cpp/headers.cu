// Compiled, never run: the math headers as device code, every function for float and double.
#include "math/attention_mask.h"
#include "math/attention_wmse.h"
#include "math/ct_window.h"
#include "math/overlap_counts.h"
#include "math/tversky.h"

using namespace ichfast;

template <class T>
__device__ void each(const T* in, T* out, int32_t* counts, bool flag) {
  const auto function = flag ? ct_window::Function::kLinear : ct_window::Function::kSigmoid;
  const auto window = ct_window::window(in[0], in[1], function, flag);
  const T h = ct_window::rescale<false>(in[0], in[1], in[2]);
  const T fast = ct_window::linear<true>(ct_window::rescale<true>(in[0], in[1], in[2]), window);
  out[0] = fast + ct_window::linear<false>(h, window) + ct_window::sigmoidal(h, window) +
           ct_window::step(h, window);

  const auto pair = attention_mask::masked(in[0], in[1]);
  out[1] = attention_mask::grad_image(in[1], pair) + attention_mask::grad_logit(in[0], in[1], pair);

  const auto v = attention_wmse::voxel(in[0], in[1], in[2], in[3], flag);
  const auto s = attention_wmse::scale(attention_wmse::loss(in, in[4]), in[5], in[4]);
  out[2] = attention_wmse::grad_background(v, s, flag);
  out[3] = attention_wmse::grad_foreground(v, s, flag);
  out[4] = attention_wmse::grad_logit(in[0], v, s);

  const tversky::Parameters<T> p{in[0], in[1], in[2], in[3]};
  const auto g = tversky::gradient(in, p, in[4]);
  out[5] = tversky::loss(in, p) + g.constant + g.slope;

  overlap_counts::count(in[0], in[1], in[2], counts);
}

__global__ void all(const float* in, float* out, const double* in_wide, double* out_wide,
                    int32_t* counts, bool flag) {
  each(in, out, counts, flag);
  each(in_wide, out_wide, counts, flag);
}
