// Batch normalisation and activation: a channel is read a second time while it still lies in a cache.

#include "../maps.h"
#include "../norm.h"

namespace {

// The blocks of a job that needs no sums: images, or rows.
inline std::vector<Block> pieces_of(const Job& job, int threads) {
    const int64_t n = job.last ? job.B * job.HW : job.B;
    const int64_t at_once = std::max<int64_t>(1, n / (4 * threads));
    std::vector<Block> blocks;
    for (int64_t b = 0; b < n; b += at_once) blocks.push_back({b, std::min(n, b + at_once), 0, job.C});
    return blocks;
}

// ---- Maps of a job: y, x

template <class T, bool Last>
void norm_act(const Job& job, const Acc<T>* scale, const Acc<T>* shift, bool relu) {
    const Map<T>* maps = maps_of<T>(job);
    const int threads = threads_for(job, 2);
    const auto blocks = pieces_of(job, threads);
    parallel(threads, blocks.size(), [&](int64_t k) {
        each_tile<Last, Acc<T>>(job, blocks[k], [&](const Tile& tile) {
            normalise<T, Last, false>(job, tile, maps[1], maps[0], nullptr, scale, shift, relu);
        });
    });
}

// Maps: y (null for statistics alone), x. Without weight nothing is normalised.
template <class T, bool Last>
void norm_act_train(const Job& job, const Acc<T>* weight, const Acc<T>* bias, double eps, bool relu,
                    Acc<T>* mean, Acc<T>* var) {
    using A = Acc<T>;
    const Map<T>&y = maps_of<T>(job)[0], &x = maps_of<T>(job)[1];
    std::vector<A> near(job.C), scale(job.C), shift(job.C);
    const auto loader = [&](const Tile& tile) {
        return [p = at<Last>(job, x, tile), from = step<Last>(job, x), next = ahead<Last>(job, x, tile)](
                   int64_t s, int64_t i, auto lanes) {
            if (!Last) __builtin_prefetch(p + s * from + i + next, 0, 2);
            return load(p + s * from + i, lanes);
        };
    };
    if (Last && job.B * job.HW > 0) {
        const Tile tile{0, 0, 0, std::min<int64_t>(job.B * job.HW, 64), job.C, job.C};
        set_near<A, Last>(tile, near.data(), loader(tile));
    }
    summed<A, Last>(
        job, threads_for(job, 2), 2,
        [&](const Block& block, Sums<A, Last>& sums) {
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                const auto load_x = loader(tile);
                if (!Last && tile.b == block.b0 && tile.p == 0) set_near<A, Last>(tile, near.data(), load_x);
                sums.before(tile);
                add_moments<A, Last>(tile, near.data(), sums, load_x);
            });
        },
        [&](int64_t c0, int64_t c1, const double* totals) {
            set_affine<A>(c0, c1, totals, double(job.B) * job.HW, eps, weight, bias, near.data(), mean, var,
                          weight ? scale.data() : nullptr, shift.data());
        },
        [&](const Block& block) {
            if (!weight) return;
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                normalise<T, Last, true>(job, tile, x, y, near.data(), scale.data(), shift.data(), relu);
            });
        });
}

// ---- Maps of a job: gradient of x, gradient of y, x

template <class T, bool Last>
void norm_act_backward(const Job& job, const Acc<T>* mean, const Acc<T>* rstd, const Acc<T>* weight,
                       const Acc<T>* bias, bool relu, Acc<T>* grad_weight, Acc<T>* grad_bias) {
    using A = Acc<T>;
    const Map<T>* maps = maps_of<T>(job);
    const double count = double(job.B) * job.HW;
    std::vector<A> constants(job.C), slopes(job.C), scales(job.C);
    const auto each_value = [&](const Tile& tile, int64_t s, auto f) {
        each_gradient<T, Last>(job, tile, s, maps[1], maps[2], mean, rstd, weight, bias, relu, f);
    };
    summed<A, Last>(
        job, threads_for(job, 3), 2,
        [&](const Block& block, Sums<A, Last>& sums) {
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                sums.before(tile);
                for (int64_t s = 0; s < tile.n_segments; ++s) {
                    Sum<Last, A> one(sums.of(0, tile), s), dot(sums.of(1, tile), s);
                    each_value(tile, s, [&](int64_t i, auto, Vec<A> n, Vec<A> grad) {
                        one.add(i, grad);
                        dot.add(i, grad * n);
                    });
                    one.end();
                    dot.end();
                }
            });
        },
        [&](int64_t c0, int64_t c1, const double* totals) {
            for (int64_t c = c0; c < c1; ++c) {
                const double sum = totals[c - c0], dot = totals[c1 - c0 + c - c0];
                grad_weight[c] = A(dot);
                grad_bias[c] = A(sum);
                constants[c] = A(sum / count);
                slopes[c] = A(dot / count);
                scales[c] = A(double(rstd[c]) * weight[c]);
            }
        },
        [&](const Block& block) {
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                for (int64_t s = 0; s < tile.n_segments; ++s) {
                    const Param<Last, A> constant(constants.data() + tile.c, s);
                    const Param<Last, A> slope(slopes.data() + tile.c, s);
                    const Param<Last, A> scale(scales.data() + tile.c, s);
                    T* out = at<Last>(job, maps[0], tile) + s * step<Last>(job, maps[0]);
                    const int64_t next = ahead<Last>(job, maps[0], tile);
                    each_value(tile, s, [&](int64_t i, auto lanes, Vec<A> n, Vec<A> grad) {
                        if (!Last) __builtin_prefetch(out + i + next, 1, 2);
                        const Vec<A> through = grad - constant(i, lanes) - slope(i, lanes) * n;
                        store(out + i, through * scale(i, lanes), lanes);
                    });
                }
            });
        });
}

}  // namespace

extern "C" void norm_act(const Job* job, const void* scale, const void* shift, int64_t relu) {
    with_layout(*job, [&](auto value, auto last) {
        using A = Acc<decltype(value)>;
        norm_act<decltype(value), last>(*job, in<A>(scale), in<A>(shift), relu);
    });
}

extern "C" void norm_act_train(const Job* job, const void* weight, const void* bias, double eps, int64_t relu,
                               void* mean, void* var) {
    with_layout(*job, [&](auto value, auto last) {
        using A = Acc<decltype(value)>;
        norm_act_train<decltype(value), last>(*job, in<A>(weight), in<A>(bias), eps, relu, to<A>(mean),
                                              to<A>(var));
    });
}

extern "C" void norm_act_backward(const Job* job, const void* mean, const void* rstd, const void* weight,
                                  const void* bias, int64_t relu, void* grad_weight, void* grad_bias) {
    with_layout(*job, [&](auto value, auto last) {
        using A = Acc<decltype(value)>;
        norm_act_backward<decltype(value), last>(*job, in<A>(mean), in<A>(rstd), in<A>(weight), in<A>(bias),
                                                 relu, to<A>(grad_weight), to<A>(grad_bias));
    });
}
