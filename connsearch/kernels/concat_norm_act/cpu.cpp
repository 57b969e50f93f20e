// Batch normalisation and activation of several sources, each where it lies.

#include "../maps.h"
#include "../norm.h"

namespace {

// A source's part of a map of all channels, from channel c on.
template <class T>
Map<T> part_of(const Job& job, const Map<T>& whole, int64_t c) {
    return {whole.p + c * (job.last ? 1 : job.HW), whole.stride};
}

inline Job with_channels(Job job, int64_t channels) {
    job.C = channels;
    return job;
}

// Images, or so many rows that what is written of them stays in a cache until all sources have written.
inline std::vector<Block> pieces_of(const Job& job) {
    const int64_t n = job.last ? job.B * job.HW : job.B;
    const int64_t at_once = job.last ? std::max<int64_t>(1, 16 * TILE / std::max<int64_t>(1, job.C)) : 1;
    std::vector<Block> blocks;
    for (int64_t b = 0; b < n; b += at_once) blocks.push_back({b, std::min(n, b + at_once), 0, job.C});
    return blocks;
}

// ---- Maps of a job of K channels: y, then n sources of widths[i] channels

template <class T, bool Last>
void concat_norm_act(const Job& job, const int64_t* widths, const Acc<T>* scale, const Acc<T>* shift,
                     bool relu) {
    const Map<T>* maps = maps_of<T>(job);
    const auto blocks = pieces_of(job);
    parallel(threads_for(job, 2), blocks.size(), [&](int64_t k) {
        Block block = blocks[k];
        for (int64_t i = 0, c = 0; i < job.n; c += widths[i++]) {
            const Job one = with_channels(job, widths[i]);
            const Map<T> y = part_of(job, maps[0], c);
            block.c1 = widths[i];
            each_tile<Last, Acc<T>>(one, block, [&](const Tile& tile) {
                normalise<T, Last, false>(one, tile, maps[1 + i], y, nullptr, scale + c, shift + c, relu);
            });
        }
    });
}

// ---- Maps of a job of K channels: gradient of y, then n sources, then n sinks

// Add one reader's share to the gradient of one source.
template <class T, bool Last>
void add_share(const Job& job, const Map<T>& grad_y, const Map<T>& source, const Map<T>& sink,
               const Acc<T>* mean, const Acc<T>* rstd, const Acc<T>* weight, const Acc<T>* bias, bool relu,
               Acc<T>* grad_weight, Acc<T>* grad_bias) {
    using A = Acc<T>;
    std::vector<A> scales(job.C);
    for (int64_t c = 0; c < job.C; ++c) scales[c] = rstd[c] * weight[c];
    summed<A, Last>(
        job, threads_for(job, 4), 2,
        [&](const Block& block, Sums<A, Last>& sums) {
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                sums.before(tile);
                for (int64_t s = 0; s < tile.n_segments; ++s) {
                    Sum<Last, A> one(sums.of(0, tile), s), dot(sums.of(1, tile), s);
                    const Param<Last, A> scale(scales.data() + tile.c, s);
                    T* into = at<Last>(job, sink, tile) + s * step<Last>(job, sink);
                    const auto add = [&](int64_t i, auto lanes, Vec<A> n, Vec<A> grad) {
                        store(into + i, load(into + i, lanes) + grad * scale(i, lanes), lanes);
                        one.add(i, grad);
                        dot.add(i, grad * n);
                    };
                    each_gradient<T, Last>(job, tile, s, grad_y, source, mean, rstd, weight, bias, relu, add);
                    one.end();
                    dot.end();
                }
            });
        },
        [&](int64_t c0, int64_t c1, const double* totals) {
            for (int64_t c = c0; c < c1; ++c) {
                grad_bias[c] = A(totals[c - c0]);
                grad_weight[c] = A(totals[c1 - c0 + c - c0]);
            }
        },
        [](const Block&) {});
}

// ---- Maps of a job: sink, source

template <class T, bool Last>
void add_affine(const Job& job, const Acc<T>* slope_C, const Acc<T>* shift_C) {
    using A = Acc<T>;
    const Map<T>&sink = maps_of<T>(job)[0], &source = maps_of<T>(job)[1];
    const auto blocks = pieces_of(job);
    parallel(threads_for(job, 3), blocks.size(), [&](int64_t k) {
        each_tile<Last, A>(job, blocks[k], [&](const Tile& tile) {
            for (int64_t s = 0; s < tile.n_segments; ++s) {
                const Param<Last, A> slope(slope_C + tile.c, s), shift(shift_C + tile.c, s);
                const T* from = at<Last>(job, source, tile) + s * step<Last>(job, source);
                T* into = at<Last>(job, sink, tile) + s * step<Last>(job, sink);
                vectors<A>(tile.n, [&](int64_t i, auto lanes) {
                    const Vec<A> share = load(from + i, lanes) * slope(i, lanes) + shift(i, lanes);
                    store(into + i, load(into + i, lanes) + share, lanes);
                });
            }
        });
    });
}

}  // namespace

extern "C" void concat_norm_act(const Job* job, const int64_t* widths, const void* scale, const void* shift,
                                int64_t relu) {
    with_layout(*job, [&](auto value, auto last) {
        using A = Acc<decltype(value)>;
        concat_norm_act<decltype(value), last>(*job, widths, in<A>(scale), in<A>(shift), relu);
    });
}

extern "C" void concat_norm_act_backward(const Job* job, const int64_t* widths, const void* mean,
                                         const void* rstd, const void* weight, const void* bias, int64_t relu,
                                         void* grad_weight, void* grad_bias) {
    with_layout(*job, [&](auto value, auto last) {
        using T = decltype(value);
        using A = Acc<T>;
        const Map<T>* maps = maps_of<T>(*job);
        for (int64_t i = 0, c = 0; i < job->n; c += widths[i++])
            add_share<T, last>(with_channels(*job, widths[i]), part_of(*job, maps[0], c), maps[1 + i],
                               maps[1 + job->n + i], in<A>(mean) + c, in<A>(rstd) + c, in<A>(weight) + c,
                               in<A>(bias) + c, relu, to<A>(grad_weight) + c, to<A>(grad_bias) + c);
    });
}

extern "C" void add_affine(const Job* job, const void* slope, const void* shift) {
    with_layout(*job, [&](auto value, auto last) {
        using A = Acc<decltype(value)>;
        add_affine<decltype(value), last>(*job, in<A>(slope), in<A>(shift));
    });
}
