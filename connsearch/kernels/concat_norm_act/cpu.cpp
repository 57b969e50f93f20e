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
void concat_norm_act(const Job& job, const int64_t* widths, const Acc<T>* scale, const Acc<T>* shift, bool relu) {
    const Map<T>* maps = maps_of<T>(job);
    const auto blocks = pieces_of(job);
    parallel(threads_for(job, 2), blocks.size(), [&](int64_t k) {
        Block block = blocks[k];
        for (int64_t i = 0, c = 0; i < job.n; c += widths[i++]) {
            const Job one = with_channels(job, widths[i]);
            const Map<T> y = part_of(job, maps[0], c);
            block.c1 = widths[i];
            each_tile<Last, Acc<T>>(one, block, [&](const Tile& tile) {
                normalise<T, Last>(one, tile, maps[1 + i], y, nullptr, scale + c, shift + c, relu);
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
    summed<A, Last>(
        job, threads_for(job, 4), 2,
        [&](const Block& block, Sums<A, Last>& sums) {
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                sums.before(tile);
                A *ones = sums.of(0, tile), *dots = sums.of(1, tile);
                const T *g = at<Last>(job, grad_y, tile), *x = at<Last>(job, source, tile);
                T* into = at<Last>(job, sink, tile);
                const int64_t g_step = step<Last>(job, grad_y), x_step = step<Last>(job, source);
                const int64_t into_step = step<Last>(job, sink);
                over<A>(tile, [&](int64_t s, int64_t i, auto lanes) {
                    const auto of = [&](const A* vector_C) { return param<Last>(vector_C + tile.c, s, i, lanes); };
                    const Vec<A> r = of(rstd), w = of(weight);
                    const Vec<A> n = (load(x + s * x_step + i, lanes) - of(mean)) * r;
                    Vec<A> grad = load(g + s * g_step + i, lanes);
                    if (relu) grad = n * w + of(bias) > 0 ? grad : Vec<A>{};
                    T* p = into + s * into_step + i;
                    store(p, load(p, lanes) + grad * w * r, lanes);
                    const int64_t k = Last ? i : s * LANES<A>;
                    store(ones + k, load(ones + k) + grad);
                    store(dots + k, load(dots + k) + grad * n);
                });
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
void add_affine(const Job& job, const Acc<T>* slope, const Acc<T>* shift) {
    using A = Acc<T>;
    const Map<T>&sink = maps_of<T>(job)[0], &source = maps_of<T>(job)[1];
    const auto blocks = pieces_of(job);
    parallel(threads_for(job, 3), blocks.size(), [&](int64_t k) {
        each_tile<Last, A>(job, blocks[k], [&](const Tile& tile) {
            const T* from = at<Last>(job, source, tile);
            T* into = at<Last>(job, sink, tile);
            const int64_t from_step = step<Last>(job, source), into_step = step<Last>(job, sink);
            over<A>(tile, [&](int64_t s, int64_t i, auto lanes) {
                const Vec<A> share = load(from + s * from_step + i, lanes) * param<Last>(slope + tile.c, s, i, lanes) +
                                     param<Last>(shift + tile.c, s, i, lanes);
                T* p = into + s * into_step + i;
                store(p, load(p, lanes) + share, lanes);
            });
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
