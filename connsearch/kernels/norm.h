// Batch statistics, and what normalises by them.

#pragma once

#include <cmath>

#include "maps.h"

namespace {

// Sums of x - K and its square, K near the mean, so that no digits of a small variance are lost.
template <class A, bool Last, class Load>
INLINE void add_moments(const Tile& tile, const A* near_C, const Sums<A, Last>& sums, Load load_x) {
    for (int64_t s = 0; s < tile.n_segments; ++s) {
        const Param<Last, A> near(near_C + tile.c, s);
        Sum<Last, A> one(sums.of(0, tile), s), square(sums.of(1, tile), s);
        vectors<A>(tile.n, [&](int64_t i, auto lanes) {
            const Vec<A> d = kept(load_x(s, i, lanes) - near(i, lanes), lanes);
            one.add(i, d);
            square.add(i, d * d);
        });
        one.end();
        square.end();
    }
}

// The first tile of an image, or the first rows, give K.
template <class A, bool Last, class Load>
void set_near(const Tile& tile, A* near_C, Load load_x) {
    if constexpr (Last) {
        std::fill(near_C, near_C + tile.n, A(0));
        for (int64_t s = 0; s < tile.n_segments; ++s)
            vectors<A>(tile.n, [&](int64_t i, auto lanes) {
                store(near_C + i, load(near_C + i, lanes) + load_x(s, i, lanes), lanes);
            });
        for (int64_t c = 0; c < tile.n; ++c) near_C[c] /= tile.n_segments;
    } else {
        for (int64_t s = 0; s < tile.n_segments; ++s) {
            Vec<A> sum{};
            vectors<A>(tile.n, [&](int64_t i, auto lanes) { sum += load_x(s, i, lanes); });
            A lanes[LANES<A>];
            store(lanes, sum);
            near_C[tile.c + s] = A(total(lanes) / tile.n);
        }
    }
}

struct Moments {
    double offset, var;  // mean - K, and the variance
};
inline Moments moments(const double* totals, int64_t channels, int64_t c, double count) {
    const double offset = totals[c] / count;
    const double var = totals[channels + c] / count - offset * offset;
    return {offset, var < 0 ? 0 : var};  // NaN stays NaN
}


// From the sums of a block follow its statistics, and scale and shift of (x - K).
template <class A>
void set_affine(int64_t c0, int64_t c1, const double* totals, double count, double eps, const A* weight,
                const A* bias, const A* near, A* mean, A* var, A* scale, A* shift) {
    for (int64_t c = c0; c < c1; ++c) {
        const Moments found = moments(totals, c1 - c0, c - c0, count);
        mean[c] = A(near[c] + found.offset);
        var[c] = A(found.var);
        if (!scale) continue;
        const double factor = weight[c] / std::sqrt(found.var + eps);
        scale[c] = A(factor);
        shift[c] = A(bias[c] - found.offset * factor);
    }
}

// y = act((x - near) scale + shift), of Centred maps, channel by channel; else y = act(x scale + shift).
template <class T, bool Last, bool Centred>
INLINE void normalise(const Job& job, const Tile& tile, const Map<T>& x, const Map<T>& y,
                      const Acc<T>* near_C, const Acc<T>* scale_C, const Acc<T>* shift_C, bool relu) {
    using A = Acc<T>;
    for (int64_t s = 0; s < tile.n_segments; ++s) {
        const Param<Last, A> near((Centred ? near_C : scale_C) + tile.c, s), scale(scale_C + tile.c, s);
        const Param<Last, A> shift(shift_C + tile.c, s);
        const T* from = at<Last>(job, x, tile) + s * step<Last>(job, x);
        T* into = at<Last>(job, y, tile) + s * step<Last>(job, y);
        const int64_t next = ahead<Last>(job, y, tile);
        vectors<A>(tile.n, [&](int64_t i, auto lanes) {
            if (Centred && !Last) __builtin_prefetch(into + i + next, 1, 2);
            Vec<A> v = load(from + i, lanes);
            if (Centred) v -= near(i, lanes);
            store(into + i, activated(v * scale(i, lanes) + shift(i, lanes), relu), lanes);
        });
    }
}

// What reaches a normalised value n = (x - mean) rstd: f(i, lanes, n, gradient that act lets through).
template <class T, bool Last, class F>
INLINE void each_gradient(const Job& job, const Tile& tile, int64_t s, const Map<T>& grad_y, const Map<T>& x,
                          const Acc<T>* mean_C, const Acc<T>* rstd_C, const Acc<T>* weight_C,
                          const Acc<T>* bias_C, bool relu, F f) {
    using A = Acc<T>;
    const Param<Last, A> mean(mean_C + tile.c, s), rstd(rstd_C + tile.c, s);
    const Param<Last, A> weight(weight_C + tile.c, s), bias(bias_C + tile.c, s);
    const T* g = at<Last>(job, grad_y, tile) + s * step<Last>(job, grad_y);
    const T* h = at<Last>(job, x, tile) + s * step<Last>(job, x);
    const int64_t next_g = ahead<Last>(job, grad_y, tile), next_h = ahead<Last>(job, x, tile);
    vectors<A>(tile.n, [&](int64_t i, auto lanes) {
        if (!Last) __builtin_prefetch(g + i + next_g, 0, 2);
        if (!Last) __builtin_prefetch(h + i + next_h, 0, 2);
        const Vec<A> n = (load(h + i, lanes) - mean(i, lanes)) * rstd(i, lanes);
        Vec<A> grad = load(g + i, lanes);
        if (relu) grad = n * weight(i, lanes) + bias(i, lanes) <= 0 ? Vec<A>{} : grad;
        f(i, lanes, n, grad);
    });
}

}  // namespace
