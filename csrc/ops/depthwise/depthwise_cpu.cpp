#include "ops/depthwise/depthwise.h"

#include "common/simd_convert.h"
#include "common/visit.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

constexpr int64_t kChunk = 64;  // channels whose sums are kept in registers or L1 at a time

// max(value, 0) by the comparison of PyTorch's ReLU, which is false for NaN: a NaN stays.
template <class A>
PYNAS_INLINE A rectify(A value) {
  return value <= A(0) ? A(0) : value;
}

// One convolution with its filter as [taps, channels].
template <class A>
struct Filter {
  int64_t kernel, dilation, padding;
  const A* weights;
};

template <class T, class A>
struct Stage {
  const DepthwiseParams& p;
  const T* x;
  const A* scale;
  const A* offset;
  Filter<A> filters[kMaxDepthwise];
  bool live[kMaxDepthwise];

  // Transposes the filters into the workspace: their channels must be neighbours.
  explicit Stage(const DepthwiseParams& params)
      : p(params),
        x(static_cast<const T*>(p.x)),
        scale(static_cast<const A*>(p.scale)),
        offset(static_cast<const A*>(p.offset)) {
    A* to = static_cast<A*>(p.workspace);
    for (int k = 0; k < p.count; ++k) {
      const DepthwiseConv& conv = p.convs[k];
      const T* from = static_cast<const T*>(conv.weight);
      const int64_t taps = conv.kernel * conv.kernel;
      for (int64_t c = 0; c < p.channels; ++c)
        for (int64_t tap = 0; tap < taps; ++tap) to[tap * p.channels + c] = to_float(from[c * taps + tap]);
      filters[k] = {conv.kernel, conv.dilation, conv.dilation * (conv.kernel - 1) / 2, to};
      live[k] = p.gates == nullptr || conv.gate < 0 || static_cast<const A*>(p.gates)[conv.gate] != A(0);
      to += taps * p.channels;
    }
  }

  const T* pixel(int64_t n, int64_t row, int64_t column) const {
    return x + ((n * p.height + row) * p.width + column) * p.channels;
  }

  // scale x + offset of channel c, the rectifier's input.
  PYNAS_INLINE A affine(T value, int64_t c) const {
    const A v = to_float(value);
    return scale == nullptr ? v : scale[c] * v + offset[c];
  }
};

// Calls body(first_channel, channels) chunk by chunk.
template <class F>
PYNAS_INLINE void for_chunks(int64_t channels, F body) {
  for (int64_t c = 0; c < channels; c += kChunk) body(c, least(kChunk, channels - c));
}

// Row i of image n of one output.
template <class T, class A>
void forward_row(const Stage<T, A>& s, const Filter<A>& f, T* out, int64_t n, int64_t i) {
  const DepthwiseParams& p = s.p;
  const int64_t C = p.channels, step = p.stride;
  out += (n * p.out_height + i) * p.out_width * C;
  for_chunks(C, [&](int64_t first, int64_t channels) {
    for (int64_t j = 0; j < p.out_width; ++j) {
      A sum[kChunk] = {};
      for (int64_t tap = 0; tap < f.kernel * f.kernel; ++tap) {
        const int64_t row = step * i + f.dilation * (tap / f.kernel) - f.padding;
        const int64_t column = step * j + f.dilation * (tap % f.kernel) - f.padding;
        if (row < 0 || row >= p.height || column < 0 || column >= p.width) continue;
        const T* x = s.pixel(n, row, column) + first;
        const A* w = f.weights + tap * C + first;
        for (int64_t c = 0; c < channels; ++c) sum[c] += w[c] * rectify(s.affine(x[c], first + c));
      }
      for (int64_t c = 0; c < channels; ++c) store_one(sum[c], out[j * C + first + c]);
    }
  });
}

// Row y of image n of grad_input.
template <class T, class A>
void backward_input_row(const Stage<T, A>& s, int64_t n, int64_t y) {
  const DepthwiseParams& p = s.p;
  const int64_t C = p.channels, step = p.stride;
  T* out = static_cast<T*>(p.grad_input) + (n * p.height + y) * p.width * C;
  for_chunks(C, [&](int64_t first, int64_t channels) {
    for (int64_t column = 0; column < p.width; ++column) {
      A sum[kChunk] = {};
      for (int k = 0; k < p.count; ++k) {
        if (!s.live[k]) continue;
        const Filter<A>& f = s.filters[k];
        for (int64_t tap = 0; tap < f.kernel * f.kernel; ++tap) {
          const int64_t si = y + f.padding - f.dilation * (tap / f.kernel);  // s i, s j
          const int64_t sj = column + f.padding - f.dilation * (tap % f.kernel);
          if (si < 0 || si % step != 0 || si / step >= p.out_height) continue;
          if (sj < 0 || sj % step != 0 || sj / step >= p.out_width) continue;
          const T* g = static_cast<const T*>(p.convs[k].out) +
                       ((n * p.out_height + si / step) * p.out_width + sj / step) * C + first;
          const A* w = f.weights + tap * C + first;
          for (int64_t c = 0; c < channels; ++c) sum[c] += w[c] * to_float(g[c]);
        }
      }
      const T* x = s.pixel(n, y, column) + first;
      T* to = out + column * C + first;
      for (int64_t c = 0; c < channels; ++c) {
        A value = s.affine(x[c], first + c) <= A(0) ? A(0) : sum[c];
        if (p.accumulate) value += to_float(to[c]);
        store_one(value, to[c]);
      }
    }
  });
}

// sums [taps, channels] += the terms of row i of image n; a row is summed in A, the rows in float64.
template <class T, class A>
void backward_weight_row(const Stage<T, A>& s, const Filter<A>& f, const T* grad, int64_t n, int64_t i,
                         double* sums) {
  const DepthwiseParams& p = s.p;
  const int64_t C = p.channels, step = p.stride;
  grad += (n * p.out_height + i) * p.out_width * C;
  for (int64_t tap = 0; tap < f.kernel * f.kernel; ++tap) {
    const int64_t row = step * i + f.dilation * (tap / f.kernel) - f.padding;
    if (row < 0 || row >= p.height) continue;
    for_chunks(C, [&](int64_t first, int64_t channels) {
      A sum[kChunk] = {};
      for (int64_t j = 0; j < p.out_width; ++j) {
        const int64_t column = step * j + f.dilation * (tap % f.kernel) - f.padding;
        if (column < 0 || column >= p.width) continue;
        const T* x = s.pixel(n, row, column) + first;
        const T* g = grad + j * C + first;
        for (int64_t c = 0; c < channels; ++c) sum[c] += to_float(g[c]) * rectify(s.affine(x[c], first + c));
      }
      for (int64_t c = 0; c < channels; ++c) sums[tap * C + first + c] += sum[c];
    });
  }
}

template <class T, class A>
void forward(const DepthwiseParams& p, const Parallel& parallel) {
  const Stage<T, A> stage(p);
  parallel(p.batch * p.out_height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int k = 0; k < p.count; ++k) {
        T* out = static_cast<T*>(p.convs[k].out);
        if (stage.live[k]) {
          forward_row(stage, stage.filters[k], out, r / p.out_height, r % p.out_height);
        } else {
          for (int64_t e = 0; e < p.out_width * p.channels; ++e) out[r * p.out_width * p.channels + e] = T{};
        }
      }
    }
  });
}

template <class T, class A>
void backward_input(const DepthwiseParams& p, const Parallel& parallel) {
  const Stage<T, A> stage(p);
  parallel(p.batch * p.height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) backward_input_row(stage, r / p.height, r % p.height);
  });
}

template <class T, class A>
void backward_weight(const DepthwiseParams& p, const Parallel& parallel) {
  const Stage<T, A> stage(p);
  const int64_t sums = depthwise_taps(p) * p.channels, rows = p.batch * p.out_height;
  double* partial = static_cast<double*>(p.workspace) + sums;
  parallel(parallel.threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      double* own = partial + t * sums;
      for (int64_t e = 0; e < sums; ++e) own[e] = 0.0;
      for (int64_t r = rows * t / parallel.threads; r < rows * (t + 1) / parallel.threads; ++r) {
        double* to = own;
        for (int k = 0; k < p.count; ++k) {
          const Filter<A>& f = stage.filters[k];
          if (stage.live[k])
            backward_weight_row(stage, f, static_cast<const T*>(p.convs[k].out), r / p.out_height,
                                r % p.out_height, to);
          to += f.kernel * f.kernel * p.channels;
        }
      }
    }
  });
  const double* from = partial;
  for (int k = 0; k < p.count; ++k) {
    const int64_t taps = p.convs[k].kernel * p.convs[k].kernel;
    A* out = static_cast<A*>(p.convs[k].grad_weight);
    for (int64_t c = 0; c < p.channels; ++c) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        double sum = 0.0;
        for (int t = 0; t < parallel.threads; ++t) sum += from[t * sums + tap * p.channels + c];
        out[c * taps + tap] = static_cast<A>(sum);
      }
    }
    from += taps * p.channels;
  }
}

}  // namespace

void depthwise_forward(const DepthwiseParams& p, const Parallel& parallel) {
  visit_dtype_without_half(p.dtype, [&](auto types) {
    forward<typename decltype(types)::In, typename decltype(types)::Sum>(p, parallel);
  });
}

void depthwise_backward_input(const DepthwiseParams& p, const Parallel& parallel) {
  visit_dtype_without_half(p.dtype, [&](auto types) {
    backward_input<typename decltype(types)::In, typename decltype(types)::Sum>(p, parallel);
  });
}

void depthwise_backward_weight(const DepthwiseParams& p, const Parallel& parallel) {
  visit_dtype_without_half(p.dtype, [&](auto types) {
    backward_weight<typename decltype(types)::In, typename decltype(types)::Sum>(p, parallel);
  });
}

}  // namespace pynas::cpu::PYNAS_ISA_NS
