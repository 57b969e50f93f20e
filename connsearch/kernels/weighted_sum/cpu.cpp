// Weighted sums of sources, and the gradients of their sources pulled from all readers at once.
//
// A tile of each map is added to an accumulator in the first cache, some maps at a time, so that each map is
// read once and the result is written once. Of several sums of the same maps, accumulators are in registers.

#include "../maps.h"
#include "../norm.h"

namespace {

enum Mode { SUM, DOTS, DOTS_AND_SUMS };  // what is computed of each map beside the weighted sum

// N maps at one tile, with their weights, and where the sums over the tile go.
template <class T, int N>
struct Several {
    const T* p[N];
    int64_t step[N];
    const Acc<T>* weight[N];  // of the tile's first channel
    int64_t ahead[N];         // values from here to the next tile
    Acc<T>* dot[N];
    Acc<T>* sum[N];
};

// Of ROWS segments from s on: total += sum_k weight_k map_k; dot_k += map_k source; sum_k += map_k. Segments
// of total and source are padded. Of rows of channels, two at once share weights and sums in registers.
template <class T, bool Last, Mode M, int N, int ROWS>
INLINE void gather_rows(const Tile& tile, int64_t s, const Several<T, N>& maps, Acc<T>* total,
                        const Acc<T>* source) {
    using A = Acc<T>;
    const int64_t pitch = padded<A>(tile.n);
    total += s * pitch;
    source += s * pitch;
    const T* p[N];
    Vec<A> weight[N], dot[N], sum[N];
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) {
        p[k] = maps.p[k] + s * maps.step[k];
        if (!Last) weight[k] = all(maps.weight[k][s]);
        if (!Last && M != SUM) dot[k] = load(maps.dot[k] + s * LANES<A>);
        if (!Last && M == DOTS_AND_SUMS) sum[k] = load(maps.sum[k] + s * LANES<A>);
    }
    vectors<A>(tile.n, [&](int64_t i, auto lanes) {
        Vec<A> t[ROWS], h[ROWS];
#pragma GCC unroll 2
        for (int r = 0; r < ROWS; ++r) {
            t[r] = load(total + r * pitch + i);
            if (M != SUM) h[r] = load(source + r * pitch + i);
        }
#pragma GCC unroll 4
        for (int k = 0; k < N; ++k) {
            const Vec<A> w = Last ? load(maps.weight[k] + i, lanes) : weight[k];
            if (Last && M != SUM) dot[k] = load(maps.dot[k] + i);
            if (Last && M == DOTS_AND_SUMS) sum[k] = load(maps.sum[k] + i);
#pragma GCC unroll 2
            for (int r = 0; r < ROWS; ++r) {
                const T* from = p[k] + r * maps.step[k] + i;
                __builtin_prefetch(from + maps.ahead[k], 0, 2);
                const Vec<A> g = load(from, lanes);
                t[r] += g * w;
                if (M != SUM) dot[k] += g * h[r];
                if (M == DOTS_AND_SUMS) sum[k] += g;
            }
            if (Last && M != SUM) store(maps.dot[k] + i, dot[k]);
            if (Last && M == DOTS_AND_SUMS) store(maps.sum[k] + i, sum[k]);
        }
#pragma GCC unroll 2
        for (int r = 0; r < ROWS; ++r) store(total + r * pitch + i, t[r]);
    });
#pragma GCC unroll 4
    for (int k = 0; k < N && !Last; ++k) {
        if (M != SUM) store(maps.dot[k] + s * LANES<A>, dot[k]);
        if (M == DOTS_AND_SUMS) store(maps.sum[k] + s * LANES<A>, sum[k]);
    }
}

template <class T, bool Last, Mode M, int N>
void gather(const Job& job, const Tile& tile, const Map<T>* maps, int64_t j, const Acc<T>* weight,
            int64_t weight_step, const Sums<Acc<T>, Last>* sums, Acc<T>* total, const Acc<T>* source) {
    Several<T, N> several;
    for (int k = 0; k < N; ++k) {
        several.p[k] = at<Last>(job, maps[j + k], tile);
        several.step[k] = step<Last>(job, maps[j + k]);
        several.ahead[k] = ahead<Last>(job, maps[j + k], tile);
        several.weight[k] = weight + (j + k) * weight_step + tile.c;
        if (M != SUM) several.dot[k] = sums->of(j + k, tile);
        if (M == DOTS_AND_SUMS) several.sum[k] = sums->of(job.n + j + k, tile);
    }
    int64_t s = 0;
    if (Last)
        for (; s + 2 <= tile.n_segments; s += 2)
            gather_rows<T, Last, M, N, 2>(tile, s, several, total, source);
    for (; s < tile.n_segments; ++s) gather_rows<T, Last, M, N, 1>(tile, s, several, total, source);
}

// Add all maps of a job to a tile's total.
template <class T, bool Last, Mode M>
void gather_all(const Job& job, const Tile& tile, const Map<T>* maps, const Acc<T>* weight,
                int64_t weight_step, const Sums<Acc<T>, Last>* sums, Acc<T>* total, const Acc<T>* source) {
    int64_t j = 0;
    for (; j + 4 <= job.n; j += 4)
        gather<T, Last, M, 4>(job, tile, maps, j, weight, weight_step, sums, total, source);
    if (j + 2 <= job.n) {
        gather<T, Last, M, 2>(job, tile, maps, j, weight, weight_step, sums, total, source);
        j += 2;
    }
    if (j < job.n) gather<T, Last, M, 1>(job, tile, maps, j, weight, weight_step, sums, total, source);
}

// total = bias of the channel, or 0.
template <class A, bool Last>
INLINE void begin(const Tile& tile, const A* bias_C, A* total) {
    const int64_t pitch = padded<A>(tile.n);
    if (!bias_C) {
        std::fill(total, total + tile.n_segments * pitch, A(0));
        return;
    }
    for (int64_t s = 0; s < tile.n_segments; ++s) {
        const Param<Last, A> bias(bias_C + tile.c, s);
        vectors<A>(tile.n, [&](int64_t i, auto lanes) { store(total + s * pitch + i, bias(i, lanes)); });
    }
}

// total = the map's tile, or 0 without a map.
template <class T, bool Last>
INLINE void fetch(const Job& job, const Tile& tile, const Map<T>& map, Acc<T>* total) {
    using A = Acc<T>;
    if (!map.p) return begin<A, Last>(tile, nullptr, total);
    const int64_t pitch = padded<A>(tile.n);
    for (int64_t s = 0; s < tile.n_segments; ++s) {
        const T* p = at<Last>(job, map, tile) + s * step<Last>(job, map);
        const int64_t next = ahead<Last>(job, map, tile);
        vectors<A>(tile.n, [&](int64_t i, auto lanes) {
            __builtin_prefetch(p + i + next, 0, 2);
            store(total + s * pitch + i, load(p + i, lanes));
        });
    }
}

template <class T, bool Last>
INLINE void put(const Job& job, const Tile& tile, const Acc<T>* total, const Map<T>& out) {
    using A = Acc<T>;
    const int64_t pitch = padded<A>(tile.n);
    for (int64_t s = 0; s < tile.n_segments; ++s) {
        T* p = at<Last>(job, out, tile) + s * step<Last>(job, out);
        const int64_t next = ahead<Last>(job, out, tile);
        vectors<A>(tile.n, [&](int64_t i, auto lanes) {
            __builtin_prefetch(p + i + next, 1, 2);
            store(p + i, load(total + s * pitch + i), lanes);
        });
    }
}

// One image's job of a job whose weights differ between images.
template <class T>
std::vector<char> job_of_image(const Job& job, int64_t n_maps, int64_t b) {
    std::vector<char> memory(sizeof(Job) + n_maps * sizeof(Map<T>));
    std::memcpy(memory.data(), &job, memory.size());
    Job& one = *reinterpret_cast<Job*>(memory.data());
    one.B = one.threads = 1;
    auto* maps = reinterpret_cast<Map<T>*>(&one + 1);
    for (int64_t i = 0; i < n_maps; ++i)
        if (maps[i].p) maps[i].p += b * maps[i].stride * (job.last ? job.HW : 1);
    return memory;
}

// Blocks that need no sums: some rows, or images in the order of memory; of few images, some channels.
template <bool Last>
std::vector<Block> pieces_of(const Job& job, int threads) {
    const int64_t n = Last ? job.B * job.HW : job.B;
    const int64_t at_once = Last ? std::max<int64_t>(1, 32 * TILE / std::max<int64_t>(1, job.C)) : 1;
    const int64_t parts = Last || job.B >= threads ? 1 : std::min<int64_t>(threads, job.C);
    std::vector<Block> blocks;
    for (int64_t b = 0; b < n; b += at_once)
        for (int64_t k = 0; k < parts; ++k)
            blocks.push_back({b, std::min(n, b + at_once), job.C * k / parts, job.C * (k + 1) / parts});
    return blocks;
}

// ---- Maps of a job: out, then n sources

template <class T, bool Last>
void weighted_sum(const Job& job, const Acc<T>* weight, int64_t weight_step, const Acc<T>* bias) {
    using A = Acc<T>;
    const Map<T>* maps = maps_of<T>(job);
    const int threads = threads_for(job, job.n + 1);
    const auto blocks = pieces_of<Last>(job, threads);
    parallel(threads, blocks.size(), goes_back(job), [&](int64_t k) {
        A* total = scratch<A>(1, tile_size<A>(job));
        each_tile<Last, A>(job, blocks[k], [&](const Tile& tile) {
            begin<A, Last>(tile, bias, total);
            gather_all<T, Last, SUM>(job, tile, maps + 1, weight, weight_step, nullptr, total, nullptr);
            put<T, Last>(job, tile, total, maps[0]);
        });
    });
}

// Of some values of a row or plane: out_k = sum_j w_kj h_j, K sums in registers, of V vectors each. Weights
// K n C begin at the first value's channel.
template <class T, bool Last, int K, int V, class Lanes>
INLINE void sums_at(const std::vector<const T*>& from, const Acc<T>* weight, int64_t C, int64_t i,
                    T* const* into, Lanes lanes) {
    using A = Acc<T>;
    const int64_t n = from.size(), next = 4 * TILE / std::max<int64_t>(4, n);  // that all find room
    Vec<A> total[K][V] = {};
    for (int64_t j = 0; j < n; ++j) {
        const T* p = from[j] + i;
        __builtin_prefetch(p + next, 0, 2);
        if (V * LANES<A> * sizeof(T) > CACHE_LINE) __builtin_prefetch(p + next + LANES<A>, 0, 2);
        Vec<A> h[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) h[v] = load(p + v * LANES<A>, lanes);
#pragma GCC unroll 4
        for (int k = 0; k < K; ++k) {
            const A* w = weight + (k * n + j) * C;
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v)
                total[k][v] += h[v] * (Last ? load(w + i + v * LANES<A>, lanes) : all(*w));
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) store(into[k] + i + v * LANES<A>, total[k][v], lanes);
}

// ---- Maps of a job: K sums, then n sources

template <class T, bool Last, int K>
void begin_sums(const Job& job, const Acc<T>* weight) {
    const Map<T>*into = maps_of<T>(job), *sources = into + K;
    const int threads = threads_for(job, job.n + K);
    const auto blocks = pieces_of<Last>(job, threads);
    parallel(threads, blocks.size(), [&](int64_t b) {
        std::vector<const T*> from(job.n);
        T* out[K];
        each_tile<Last, Acc<T>>(job, blocks[b], [&](const Tile& tile) {
            for (int64_t s = 0; s < tile.n_segments; ++s) {
                const auto place = [&](const Map<T>& map) {
                    return at<Last>(job, map, tile) + s * step<Last>(job, map);
                };
                for (int64_t j = 0; j < job.n; ++j) from[j] = place(sources[j]);
                for (int k = 0; k < K; ++k) out[k] = place(into[k]);
                const Acc<T>* w = weight + (Last ? 0 : tile.c + s);
                constexpr int64_t two = 2 * LANES<Acc<T>>;
                int64_t i = 0;
                for (; i + two <= tile.n; i += two) sums_at<T, Last, K, 2>(from, w, job.C, i, out, Whole{});
                vectors<Acc<T>>(tile.n - i, [&](int64_t rest, auto lanes) {
                    sums_at<T, Last, K, 1>(from, w, job.C, i + rest, out, lanes);
                });
            }
        });
    });
}

// ---- Maps of a job: x, y, then n sources

template <class T, bool Last>
void weighted_sum_norm_act(const Job& job, const Acc<T>* weight, const Acc<T>* bias,
                           const Acc<T>* norm_weight, const Acc<T>* norm_bias, double eps, bool relu,
                           Acc<T>* mean, Acc<T>* var) {
    using A = Acc<T>;
    const Map<T>* maps = maps_of<T>(job);
    const int threads = threads_for(job, job.n + 2);
    std::vector<A> near(job.C), scale(job.C), shift(job.C);
    const auto sum_tile = [&](const Tile& tile, A* total) {
        begin<A, Last>(tile, bias, total);
        gather_all<T, Last, SUM>(job, tile, maps + 2, weight, job.C, nullptr, total, nullptr);
    };
    if (Last && job.B * job.HW > 0) {
        A* total = scratch<A>(1, tile_size<A>(job));
        const int64_t rows = std::min(job.B * job.HW, std::max<int64_t>(1, TILE / padded<A>(job.C)));
        const Tile tile{0, 0, 0, rows, job.C, job.C};
        sum_tile(tile, total);
        set_near<A, Last>(tile, near.data(), [&](int64_t s, int64_t i, auto) {
            return load(total + s * padded<A>(tile.n) + i);
        });
    }
    summed<A, Last>(
        job, threads, 2,
        [&](const Block& block, Sums<A, Last>& sums) {
            A* total = scratch<A>(1, tile_size<A>(job));
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                sum_tile(tile, total);
                put<T, Last>(job, tile, total, maps[0]);
                const T* x = at<Last>(job, maps[0], tile);
                const auto load_x = [&, from = step<Last>(job, maps[0])](int64_t s, int64_t i, auto lanes) {
                    return load(x + s * from + i, lanes);  // as it was rounded
                };
                if (!Last && tile.b == block.b0 && tile.p == 0) set_near<A, Last>(tile, near.data(), load_x);
                sums.before(tile);
                add_moments<A, Last>(tile, near.data(), sums, load_x);
            });
        },
        [&](int64_t c0, int64_t c1, const double* totals) {
            set_affine(c0, c1, totals, job.B * job.HW, eps, norm_weight, norm_bias, near.data(), mean, var,
                       scale.data(), shift.data());
        },
        [&](const Block& block) {
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                normalise<T, Last, true>(job, tile, maps[0], maps[1], near.data(), scale.data(), shift.data(),
                                         relu);
            });
        });
}

// ---- Maps of a job: out, source, extra (or null), then n gradients

template <class T, bool Last>
void pull(const Job& job, const Acc<T>* weight, int64_t weight_step, Acc<T>* dots) {
    using A = Acc<T>;
    const Map<T>* maps = maps_of<T>(job);
    summed<A, Last>(
        job, threads_for(job, job.n + 2), job.n,
        [&](const Block& block, Sums<A, Last>& sums) {
            A *total = scratch<A>(1, tile_size<A>(job)), *source = scratch<A>(2, tile_size<A>(job));
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                sums.before(tile);
                fetch<T, Last>(job, tile, maps[1], source);
                fetch<T, Last>(job, tile, maps[2], total);
                gather_all<T, Last, DOTS>(job, tile, maps + 3, weight, weight_step, &sums, total, source);
                put<T, Last>(job, tile, total, maps[0]);
            });
        },
        [&](int64_t c0, int64_t c1, const double* totals) {
            for (int64_t j = 0; j < job.n; ++j)
                for (int64_t c = c0; c < c1; ++c)
                    dots[j * weight_step + c] = A(totals[j * (c1 - c0) + c - c0]);
        },
        [](const Block&) {});
}

// A sum that is not rounded yet waits in memory of maps: where these have 16 bits, half of it in each of two.
template <class T>
using Half = std::conditional_t<sizeof(T) == 2, BFloat16, T>;

template <class T, class Lanes>
INLINE Vec<Acc<T>> load_waiting(const T* p, const T* rest, Lanes lanes) {
    using H = Half<T>;
    const Vec<Acc<T>> v = load(reinterpret_cast<const H*>(p), lanes);
    if constexpr (sizeof(T) > 2) return v;
    else return v + load(reinterpret_cast<const H*>(rest), lanes);
}
template <class T, class Lanes>
INLINE void store_waiting(T* p, T* rest, Vec<Acc<T>> v, Lanes lanes) {
    using H = Half<T>;
    auto* first = reinterpret_cast<H*>(p);
    store(first, v, lanes);
    if constexpr (sizeof(T) == 2) store(reinterpret_cast<H*>(rest), v - load(first, lanes), lanes);
}

// ---- Maps of a job: out, source, extra (or null), rest, then n gradients. Rest is null unless channels are
// last and values have 16 bits.

// The sum of weighted gradients waits until the sums of the channel are known: of NCHW in a cache, for the
// channels of a block; of channels last in out and rest.
template <class T, bool Last>
void pull_normalized(const Job& job, const Acc<T>* weight, const Acc<T>* mean_C, const Acc<T>* rstd_C,
                     Acc<T>* dots, Acc<T>* sums_RC) {
    using A = Acc<T>;
    const Map<T>* maps = maps_of<T>(job);
    const Map<T>&out = maps[0], &source = maps[1], &extra = maps[2], &rest = maps[3];
    std::vector<A> constants(job.C), slopes(job.C);
    const double count = double(job.B) * job.HW;
    const auto row = [&](const Map<T>& map, const Tile& tile, int64_t s) {
        return map.p ? at<Last>(job, map, tile) + s * step<Last>(job, map) : nullptr;
    };
    const auto cached = [&](const Block& block) {
        const int64_t planes = job.B * (block.c1 - block.c0);
        return scratch<A>(3, Last ? tile_size<A>(job) : planes * padded<A>(job.HW));
    };
    const auto place = [&](const Block& block, const Tile& tile) {
        return Last ? 0 : (tile.b * (block.c1 - block.c0) + tile.c - block.c0) * padded<A>(job.HW) + tile.p;
    };
    summed<A, Last>(
        job, threads_for(job, job.n + 2), 2 * job.n,
        [&](const Block& block, Sums<A, Last>& sums) {
            A *cache = cached(block), *normal = scratch<A>(2, tile_size<A>(job));
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                const int64_t pitch = padded<A>(tile.n);
                A* total = cache + place(block, tile);
                begin<A, Last>(tile, nullptr, total);
                for (int64_t s = 0; s < tile.n_segments; ++s) {
                    const Param<Last, A> mean(mean_C + tile.c, s), rstd(rstd_C + tile.c, s);
                    const T* h = row(source, tile, s);
                    const int64_t next = ahead<Last>(job, source, tile);
                    vectors<A>(tile.n, [&](int64_t i, auto lanes) {
                        __builtin_prefetch(h + i + next, 0, 2);
                        store(normal + s * pitch + i, (load(h + i, lanes) - mean(i, lanes)) * rstd(i, lanes));
                    });
                }
                sums.before(tile);
                gather_all<T, Last, DOTS_AND_SUMS>(job, tile, maps + 4, weight, job.C, &sums, total, normal);
                for (int64_t s = 0; Last && s < tile.n_segments; ++s) {
                    T *p = row(out, tile, s), *other = row(rest, tile, s);
                    vectors<A>(tile.n, [&](int64_t i, auto lanes) {
                        store_waiting(p + i, other + i, load(total + s * pitch + i), lanes);
                    });
                }
            });
        },
        [&](int64_t c0, int64_t c1, const double* totals) {
            for (int64_t c = c0; c < c1; ++c) {
                double sum = 0, dot = 0;
                for (int64_t j = 0; j < job.n; ++j) {
                    const double dot_j = totals[j * (c1 - c0) + c - c0];
                    const double sum_j = totals[(job.n + j) * (c1 - c0) + c - c0];
                    dots[j * job.C + c] = A(dot_j);
                    sums_RC[j * job.C + c] = A(sum_j);
                    dot += weight[j * job.C + c] * dot_j;
                    sum += weight[j * job.C + c] * sum_j;
                }
                constants[c] = A(sum / count);
                slopes[c] = A(dot / count);
            }
        },
        [&](const Block& block) {
            const A* cache = cached(block);
            each_tile<Last, A>(job, block, [&](const Tile& tile) {
                for (int64_t s = 0; s < tile.n_segments; ++s) {
                    const Param<Last, A> mean(mean_C + tile.c, s), rstd(rstd_C + tile.c, s);
                    const Param<Last, A> constant(constants.data() + tile.c, s);
                    const Param<Last, A> slope(slopes.data() + tile.c, s);
                    const A* total = cache + place(block, tile) + s * padded<A>(tile.n);
                    const T *h = row(source, tile, s), *e = row(extra, tile, s), *other = row(rest, tile, s);
                    T* p = row(out, tile, s);
                    vectors<A>(tile.n, [&](int64_t i, auto lanes) {
                        const Vec<A> r = rstd(i, lanes), n = (load(h + i, lanes) - mean(i, lanes)) * r;
                        Vec<A> v;
                        if constexpr (Last) v = load_waiting<T>(p + i, other + i, lanes);
                        else v = load(total + i);
                        v = (v - constant(i, lanes) - slope(i, lanes) * n) * r;
                        if (e) v += load(e + i, lanes);
                        store(p + i, v, lanes);
                    });
                }
            });
        });
}

// Run a job whose weights are L (images or 1) C: whole, or image by image.
template <class T, class F>
void by_image(const Job& job, int64_t n_maps, int64_t images, F f) {  // f(job, image)
    if (images == 1) return f(job, 0);
    parallel(threads_for(job, n_maps), job.B, [&](int64_t b) {
        const auto memory = job_of_image<T>(job, n_maps, b);
        f(*reinterpret_cast<const Job*>(memory.data()), b);
    });
}

}  // namespace

// Weights: L (images or 1) C, in the type of sums.
extern "C" void weighted_sum(const Job* job, const void* weight, int64_t images, const void* bias) {
    with_layout(*job, [&](auto value, auto last) {
        using T = decltype(value);
        const auto* w = static_cast<const Acc<T>*>(weight);
        by_image<T>(*job, job->n + 1, images, [&](const Job& part, int64_t b) {
            weighted_sum<T, last>(part, w + b * job->C, images * job->C, static_cast<const Acc<T>*>(bias));
        });
    });
}

extern "C" void begin_sums(const Job* job, int64_t n_sums, const void* weight) {
    with_layout(*job, [&](auto value, auto last) {
        using T = decltype(value);
        const auto* w = in<Acc<T>>(weight);
        if (n_sums == 1) begin_sums<T, last, 1>(*job, w);
        if (n_sums == 2) begin_sums<T, last, 2>(*job, w);
        if (n_sums == 3) begin_sums<T, last, 3>(*job, w);
        if (n_sums == 4) begin_sums<T, last, 4>(*job, w);
    });
}

extern "C" void weighted_sum_norm_act(const Job* job, const void* weight, const void* bias,
                                      const void* norm_weight, const void* norm_bias, double eps,
                                      int64_t relu, void* mean, void* var) {
    with_layout(*job, [&](auto value, auto last) {
        using T = decltype(value);
        using A = Acc<T>;
        weighted_sum_norm_act<T, last>(*job, in<A>(weight), in<A>(bias), in<A>(norm_weight), in<A>(norm_bias),
                                       eps, relu, to<A>(mean), to<A>(var));
    });
}

extern "C" void pull(const Job* job, const void* weight, int64_t images, void* dots) {
    with_layout(*job, [&](auto value, auto last) {
        using T = decltype(value);
        const auto* w = static_cast<const Acc<T>*>(weight);
        auto* d = static_cast<Acc<T>*>(dots);
        by_image<T>(*job, job->n + 3, images, [&](const Job& part, int64_t b) {
            pull<T, last>(part, w + b * job->C, images * job->C, d + b * job->C);
        });
    });
}

extern "C" void pull_normalized(const Job* job, const void* weight, const void* mean, const void* rstd,
                                void* dots, void* sums) {
    with_layout(*job, [&](auto value, auto last) {
        using T = decltype(value);
        using A = Acc<T>;
        pull_normalized<T, last>(*job, in<A>(weight), in<A>(mean), in<A>(rstd), static_cast<A*>(dots),
                                 static_cast<A*>(sums));
    });
}
