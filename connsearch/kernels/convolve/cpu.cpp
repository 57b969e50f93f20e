// Convolutions with constant weights, of float maps that are channels last: 1x1 with what comes before it,
// 3x3 by Winograd's minimal filtering, F(2x2, 3x3) (arXiv 1509.09308). Both are products of matrices.
//
// Shapes: rows are pixels of all images, K channels are read, N written. Weights are packed in panels of
// PANEL columns: N / PANEL x K x PANEL.

#include "../maps.h"

namespace {

using V = Vec<float>;
constexpr int64_t LANE = LANES<float>;
constexpr int64_t PANEL = 2 * LANE;

// ---- Products of matrices: as many sums in registers as there are

template <int Rows, int Vectors>
INLINE void product(int64_t K, const float* a, int64_t a_step, const float* panel, float* c, int64_t c_step,
                    const float* bias, bool relu) {
    V sums[Rows][Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
        const V start = bias ? load(bias + v * LANE) : V{};
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) sums[r][v] = start;
    }
    for (int64_t k = 0; k < K; ++k) {
        V weights[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) weights[v] = load(panel + (v / 2 * K + k) * PANEL + v % 2 * LANE);
#pragma GCC unroll 12
        for (int r = 0; r < Rows; ++r) {
            const V x = all(a[r * a_step + k]);
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) sums[r][v] += x * weights[v];
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) store(c + r * c_step + v * LANE, activated(sums[r][v], relu));
}

constexpr int MANY = VECTOR_BYTES == 64 ? 12 : 6;  // rows at once of one panel; half as many of two

template <int Vectors>
INLINE void products(int64_t n, int64_t K, const float* a, int64_t a_step, const float* panel, float* c,
                     int64_t c_step, const float* bias, bool relu) {
    constexpr int at_once = 2 * MANY / Vectors;
    int64_t r = 0;
    for (; r + at_once <= n; r += at_once)
        product<at_once, Vectors>(K, a + r * a_step, a_step, panel, c + r * c_step, c_step, bias, relu);
    for (; r + 3 <= n; r += 3)
        product<3, Vectors>(K, a + r * a_step, a_step, panel, c + r * c_step, c_step, bias, relu);
    for (; r < n; ++r) product<1, Vectors>(K, a + r * a_step, a_step, panel, c + r * c_step, c_step, bias, relu);
}

// c = act(a b + bias) of n rows.
void multiply(int64_t n, int64_t K, int64_t N, const float* a, const float* b, float* c, const float* bias,
              bool relu) {
    int64_t j = 0;
    for (; j + 2 * PANEL <= N; j += 2 * PANEL)
        products<4>(n, K, a, K, b + j * K, c + j, N, bias ? bias + j : nullptr, relu);
    if (j < N) products<2>(n, K, a, K, b + j * K, c + j, N, bias ? bias + j : nullptr, relu);
}

// ---- 1x1

struct Source {
    const float* p;
    int64_t channels;
};

struct Before {  // a = act(sum_i w_i h_i + b), or of the concatenation act(w h + b); no weight: a = h
    int64_t n;
    const Source* sources;
    const float *weight, *bias;
    bool sums, relu;
};

constexpr int64_t AHEAD = 16;  // rows to fetch before their turn: of so many sources the processor does not see to it

// Channels k.. of rows r.. of a weighted sum.
template <int Rows, int Vectors>
INLINE void weigh(const Before& before, int64_t K, int64_t row, int64_t k, float* out) {
    V sums[Rows][Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) sums[r][v] = load(before.bias + k + v * LANE);
    for (int64_t i = 0; i < before.n; ++i) {
        const float* h = before.sources[i].p + row * K + k;
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
            const V weight = load(before.weight + i * K + k + v * LANE);
#pragma GCC unroll 4
            for (int r = 0; r < Rows; ++r) {
                sums[r][v] += weight * load(h + r * K + v * LANE);
                if (Rows > 1) __builtin_prefetch(h + (r + AHEAD) * K + v * LANE);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) store(out + r * K + v * LANE, activated(sums[r][v], before.relu));
}

void weigh_rows(const Before& before, int64_t K, int64_t row, int64_t n, float* out) {
    int64_t r = 0;
    for (; r + 4 <= n; r += 4) {
        int64_t k = 0;
        for (; k + 4 * LANE <= K; k += 4 * LANE) weigh<4, 4>(before, K, row + r, k, out + r * K + k);
        for (; k < K; k += LANE) weigh<4, 1>(before, K, row + r, k, out + r * K + k);
    }
    for (; r < n; ++r)
        for (int64_t k = 0; k < K; k += LANE) weigh<1, 1>(before, K, row + r, k, out + r * K + k);
}

void scale_rows(const Before& before, int64_t K, int64_t row, int64_t n, float* out) {
    for (int64_t i = 0, k = 0; i < before.n; k += before.sources[i++].channels) {
        const int64_t C = before.sources[i].channels;
        const float* h = before.sources[i].p + row * C;
        for (int64_t c = 0; c < C; c += LANE) {
            const V w = load(before.weight + k + c), b = load(before.bias + k + c);
            for (int64_t r = 0; r < n; ++r)
                store(out + r * K + k + c, activated(load(h + r * C + c) * w + b, before.relu));
        }
    }
}

void pointwise(const Before& before, int64_t rows, int64_t K, int64_t N, const float* weight, const float* bias,
               float* out, bool relu, int threads) {
    const int64_t fair = (rows + threads - 1) / threads, fits = std::max<int64_t>(12, (1 << 15) / K / 12 * 12);
    const int64_t at_once = std::min(fits, (fair + 11) / 12 * 12);
    parallel(threads, (rows + at_once - 1) / at_once, [&](int64_t i) {
        const int64_t row = i * at_once, n = std::min(at_once, rows - row);
        const float* a = before.sources[0].p + row * K;
        if (before.weight) {
            float* made = scratch<float>(0, at_once * K);
            before.sums ? weigh_rows(before, K, row, n, made) : scale_rows(before, K, row, n, made);
            a = made;
        }
        multiply(n, K, N, a, weight, out + row * N, bias, relu);
    });
}

// ---- 3x3, stride 1, padding 1: tiles of 2x2 results are made of 4x4 values each

constexpr int SIDE = 4, PLACES = SIDE * SIDE;

INLINE void to_places(const V* d, int step, V* out) {
    out[0] = d[0] - d[2 * step];
    out[step] = d[step] + d[2 * step];
    out[2 * step] = d[2 * step] - d[step];
    out[3 * step] = d[step] - d[3 * step];
}

INLINE void from_places(const V* m, int step, V* out, int out_step) {
    out[0] = m[0] + m[step] + m[2 * step];
    out[out_step] = m[step] - m[2 * step] - m[3 * step];
}

struct Maps {
    int64_t B, H, W, K, N;
};

// Where a tile lies: its first result.
struct Corner {
    int64_t b, h, w;
    Corner(const Maps& maps, int64_t tile) {
        const int64_t down = (maps.H + 1) / 2, across = (maps.W + 1) / 2;
        b = tile / (down * across);
        h = tile / across % down * 2;
        w = tile % across * 2;
    }
};

template <bool Inside>
void read_tile(const Maps& maps, const Corner& at, const float* x, float* out, int64_t place_step) {
    const int64_t h0 = at.h - 1, w0 = at.w - 1, K = maps.K;
    const float* from = x + ((at.b * maps.H + h0) * maps.W + w0) * K;
    const auto there = [&](int r, int s) {
        return Inside || (h0 + r >= 0 && h0 + r < maps.H && w0 + s >= 0 && w0 + s < maps.W);
    };
    for (int64_t k = 0; k < K; k += LANE) {
        V d[PLACES], e[PLACES];
#pragma GCC unroll 4
        for (int r = 0; r < SIDE; ++r)
#pragma GCC unroll 4
            for (int s = 0; s < SIDE; ++s)
                d[r * SIDE + s] = there(r, s) ? load(from + (r * maps.W + s) * K + k) : V{};
#pragma GCC unroll 4
        for (int s = 0; s < SIDE; ++s) to_places(d + s, SIDE, e + s);
#pragma GCC unroll 4
        for (int r = 0; r < SIDE; ++r) to_places(e + r * SIDE, 1, d + r * SIDE);
#pragma GCC unroll 16
        for (int p = 0; p < PLACES; ++p) store(out + p * place_step + k, d[p]);
    }
}

template <bool Inside>
void write_tile(const Maps& maps, const Corner& at, const float* made, int64_t place_step, const float* bias,
                bool relu, float* y) {
    const int64_t N = maps.N;
    for (int64_t k = 0; k < N; k += LANE) {
        V d[PLACES], e[2 * SIDE], out[4];
#pragma GCC unroll 16
        for (int p = 0; p < PLACES; ++p) d[p] = load(made + p * place_step + k);
#pragma GCC unroll 4
        for (int s = 0; s < SIDE; ++s) from_places(d + s, SIDE, e + s, SIDE);
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) from_places(e + r * SIDE, 1, out + 2 * r, 1);
        const V shift = bias ? load(bias + k) : V{};
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const int64_t h = at.h + i / 2, w = at.w + i % 2;
            if (!Inside && (h >= maps.H || w >= maps.W)) continue;
            store(y + ((at.b * maps.H + h) * maps.W + w) * N + k, activated(out[i] + shift, relu));
        }
    }
}

void winograd(const Maps& maps, const float* x, const float* weight, const float* bias, float* y, bool relu,
              int threads) {
    const int64_t n = maps.B * ((maps.H + 1) / 2) * ((maps.W + 1) / 2), fair = (n + threads - 1) / threads;
    const int64_t at_once = std::min<int64_t>(24, (fair + 5) / 6 * 6);
    parallel(threads, (n + at_once - 1) / at_once, [&](int64_t i) {
        const int64_t first = i * at_once, count = std::min(at_once, n - first);
        float* read = scratch<float>(0, PLACES * at_once * maps.K);
        float* made = scratch<float>(1, PLACES * at_once * maps.N);
        for (int64_t t = 0; t < count; ++t) {
            const Corner at(maps, first + t);
            const bool inside = at.h && at.w && at.h + SIDE - 1 <= maps.H && at.w + SIDE - 1 <= maps.W;
            (inside ? read_tile<true> : read_tile<false>)(maps, at, x, read + t * maps.K, count * maps.K);
        }
        for (int p = 0; p < PLACES; ++p)
            multiply(count, maps.K, maps.N, read + p * count * maps.K, weight + p * maps.K * maps.N,
                     made + p * count * maps.N, nullptr, false);
        for (int64_t t = 0; t < count; ++t) {
            const Corner at(maps, first + t);
            const bool inside = at.h + 2 <= maps.H && at.w + 2 <= maps.W;
            (inside ? write_tile<true> : write_tile<false>)(maps, at, made + t * maps.N, count * maps.N, bias,
                                                            relu, y);
        }
    });
}

INLINE int threads_for(int64_t products, int64_t most) {  // less than a million is not worth waking a thread
    return static_cast<int>(std::max<int64_t>(1, std::min(most, products >> 20)));
}

}  // namespace

extern "C" int64_t panel() { return PANEL; }

extern "C" void pointwise(const int64_t* sources, int64_t n, const void* before_weight, const void* before_bias,
                          int64_t sums, int64_t before_relu, int64_t rows, int64_t K, int64_t N, const void* weight,
                          const void* bias, void* out, int64_t relu, int64_t threads) {
    const Before before{n, reinterpret_cast<const Source*>(sources), in<float>(before_weight),
                        in<float>(before_bias), sums != 0, before_relu != 0};
    pointwise(before, rows, K, N, in<float>(weight), in<float>(bias), to<float>(out), relu != 0,
              threads_for(rows * K * N, threads));
}

extern "C" void winograd(const void* x, int64_t B, int64_t H, int64_t W, int64_t K, int64_t N, const void* weight,
                         const void* bias, void* out, int64_t relu, int64_t threads) {
    winograd({B, H, W, K, N}, in<float>(x), in<float>(weight), in<float>(bias), to<float>(out), relu != 0,
             threads_for(B * H * W * K * N * 4, threads));
}
