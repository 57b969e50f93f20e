// Maps in memory, and how work on them is cut into tiles, shared by threads and summed.
//
// Shapes: B images, C channels, HW pixels. A map is either NCHW (a plane of HW pixels for each image and
// channel; images may lie any stride apart) or channels last (a row of C values for each image and pixel;
// rows may lie any stride apart). Values of a map are T; sums of them are A = Acc<T>, totals are doubles.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vectors.h"

namespace {

// ---- What a caller asks for. The layout of both is known to `connsearch/kernels/maps.py`.

struct Job {
    int64_t last;     // channels last?
    int64_t B, C, HW;
    int64_t threads;  // at the most
    int64_t n;        // sources or readers
};

template <class T>
struct Map {
    T* p;
    int64_t stride;  // values from one image to the next; of channels last, from one row to the next
};

template <class T>
const Map<T>* maps_of(const Job& job) {  // they follow the job in memory
    return reinterpret_cast<const Map<T>*>(&job + 1);
}

template <class F>
void with_layout(const Job& job, F f) {  // f(a value of the maps' type, are they channels last?)
    job.last ? f(Value{}, std::true_type{}) : f(Value{}, std::false_type{});
}

// ---- Tiles: pieces of maps that stay in the first cache while several maps are read.

constexpr int64_t TILE = 1024;  // values
constexpr int64_t CACHE_LINE = 64;  // bytes

template <class A>
constexpr int64_t padded(int64_t n) {
    return (n + LANES<A> - 1) / LANES<A> * LANES<A>;
}

struct Block {  // NCHW: images b0..b1 of channels c0..c1; channels last: rows b0..b1, all channels
    int64_t b0, b1, c0, c1;
};

struct Tile {  // n_segments segments of n values: of planes, one for each channel; of channels last, rows
    int64_t b;     // the image; of channels last the first row
    int64_t c, p;  // the first channel and pixel
    int64_t n_segments, n;
    int64_t across;  // channels of the block
};

template <bool Last, class A, class F>
INLINE void each_tile(const Job& job, const Block& block, F f) {
    const int64_t length = Last ? job.C : job.HW;
    const int64_t at_once = std::max<int64_t>(1, TILE / std::max<int64_t>(1, padded<A>(length)));
    if (Last) {
        for (int64_t r = block.b0; r < block.b1; r += at_once)
            f(Tile{r, 0, 0, std::min(at_once, block.b1 - r), length, length});
        return;
    }
    for (int64_t b = block.b0; b < block.b1; ++b)
        for (int64_t c = block.c0; c < block.c1; c += at_once)
            for (int64_t p = 0; p < length; p += TILE)
                f(Tile{b, c, p, std::min(at_once, block.c1 - c), std::min(TILE, length - p),
                       block.c1 - block.c0});
}

template <bool Last, class T>
INLINE T* at(const Job& job, const Map<T>& map, const Tile& tile) {
    return map.p + tile.b * map.stride + (Last ? 0 : tile.c * job.HW + tile.p);
}
template <bool Last, class T>
INLINE int64_t step(const Job& job, const Map<T>& map) {  // from segment to segment
    return Last ? map.stride : job.HW;
}
// From a tile to the next one: more pixels or rows, or the same channels of the next image. What lies there is
// fetched ahead where hardware does not foresee that jump, or where many maps are read in turns.
template <bool Last, class T>
INLINE int64_t ahead(const Job& job, const Map<T>& map, const Tile& tile) {
    if (Last) return tile.n_segments * map.stride;
    const bool whole = tile.n_segments == tile.across && tile.p + tile.n == job.HW;
    return whole ? map.stride - tile.p : tile.n_segments * tile.n;
}
template <class A>
INLINE int64_t tile_size(const Job& job) {  // values of a tile whose segments are padded
    return std::max(TILE, job.last ? padded<A>(job.C) : 0) + LANES<A>;
}

// A parameter of the channels of a segment: of channels last a vector at i, else the same for all of it.
template <bool Last, class A>
class Param {
public:
    INLINE Param(const A* of_tile, int64_t segment) : p_(of_tile) {
        if (!Last) value_ = all(of_tile[segment]);
    }
    template <class Lanes>
    INLINE Vec<A> operator()(int64_t i, Lanes lanes) const {
        if constexpr (Last) return load(p_ + i, lanes);
        return value_;
    }

private:
    const A* p_;
    Vec<A> value_{};
};

// A sum over pixels while a segment is added to it: in memory if channels last, else in a register.
template <bool Last, class A>
class Sum {
public:
    INLINE Sum(A* of_tile, int64_t segment) : p_(of_tile + (Last ? 0 : segment * LANES<A>)) {
        if (!Last) value_ = load(p_);
    }
    INLINE void add(int64_t i, Vec<A> v) {
        if constexpr (Last) store(p_ + i, load(p_ + i) + v);
        else value_ += v;
    }
    INLINE void end() const {
        if (!Last) store(p_, value_);
    }

private:
    A* p_;
    Vec<A> value_{};
};

// ---- Threads

constexpr int64_t VALUES_PER_THREAD = 1 << 15;  // less is not worth waking a thread

INLINE int threads_for(const Job& job, int64_t n_maps) {
    const int64_t worth = job.B * job.C * job.HW * n_maps / VALUES_PER_THREAD;
    return static_cast<int>(std::max<int64_t>(1, std::min(job.threads, worth)));
}

// Call f(0..n - 1), or the other way round: maps at which the pass before ended are still in a cache.
template <class F>
void parallel(int threads, int64_t n, bool back, F f) {
    if (threads <= 1 || n <= 1) {
        for (int64_t i = 0; i < n; ++i) f(back ? n - 1 - i : i);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < n; ++i) f(back ? n - 1 - i : i);
}
template <class F>
void parallel(int threads, int64_t n, F f) {
    parallel(threads, n, false, f);
}
// Of readers of several maps, the next one mostly reads one map more, or one less, and goes the other way.
INLINE bool goes_back(const Job& job) { return job.n % 2; }

template <class A>
INLINE A* aligned(A* p) {  // up to a vector further on
    const auto address = reinterpret_cast<uintptr_t>(p) + VECTOR_BYTES - 1;
    return reinterpret_cast<A*>(address / VECTOR_BYTES * VECTOR_BYTES);
}

// Memory of a thread that outlives a call: fresh pages cost more than what is computed in them.
template <class A>
A* scratch(int which, int64_t n) {
    thread_local std::vector<double> kept[4];
    auto& memory = kept[which];
    const size_t needed = n * sizeof(A) / sizeof(double) + 16;
    if (memory.size() < needed) memory.resize(needed);
    return aligned(reinterpret_cast<A*>(memory.data()));
}

// ---- Sums over the images and pixels of each channel

// Q sums of each channel of a block: vectors of partial sums, from time to time added to doubles.
template <class A, bool Last>
class Sums {
public:
    Sums(const Job& job, const Block& block, int64_t n_sums, double* totals)
        : c0_(block.c0), channels_(block.c1 - block.c0), n_sums_(n_sums), totals_(totals), image_(block.b0) {
        width_ = Last ? padded<A>(channels_) : channels_ * LANES<A>;
        adds_per_image_ = job.HW / LANES<A> + 1;
        lanes_ = scratch<A>(0, n_sums * width_);
        std::fill(lanes_, lanes_ + n_sums * width_, A(0));
        std::fill(totals, totals + n_sums * channels_, 0.0);
    }
    // Where sum q of the tile's first channel is: a vector for each channel, or one value if channels last.
    A* of(int64_t q, const Tile& tile) const { return lanes_ + q * width_ + (tile.c - c0_) * LANES<A>; }
    // Call before a tile adds: flushes at places that do not depend on how channels are shared by threads.
    void before(const Tile& tile) {
        if (tile.b == image_) return;
        adds_ += Last ? tile.b - image_ : adds_per_image_;
        image_ = tile.b;
        if (adds_ >= 256) flush();
    }
    void flush() {
        adds_ = 0;
        for (int64_t q = 0; q < n_sums_; ++q)
            for (int64_t c = 0; c < channels_; ++c)
                totals_[q * channels_ + c] +=
                    Last ? double(lanes_[q * width_ + c]) : total(lanes_ + q * width_ + c * LANES<A>);
        std::fill(lanes_, lanes_ + n_sums_ * width_, A(0));
    }

private:
    int64_t c0_, channels_, n_sums_, width_, adds_per_image_, adds_ = 0;
    double* totals_;
    int64_t image_;
    A* lanes_;
};

// Blocks that a thread computes whole: of NCHW some channels of all images, else some rows, so many that the
// sums of all blocks are small beside a map.
inline std::vector<Block> blocks_of(const Job& job, int threads, int64_t n_sums) {
    std::vector<Block> blocks;
    if (job.last) {
        const int64_t rows = job.B * job.HW, at_once = std::max({int64_t{256}, (rows + 63) / 64, 4 * n_sums});
        for (int64_t r = 0; r < rows; r += at_once)
            blocks.push_back({r, std::min(rows, r + at_once), 0, job.C});
        return blocks;
    }
    const int64_t fitting = std::max<int64_t>(1, TILE / std::max<int64_t>(1, job.HW));
    const int64_t at_once = std::min(fitting, std::max<int64_t>(1, job.C / (2 * threads)));
    for (int64_t c = 0; c < job.C; c += at_once)
        blocks.push_back({0, job.B, c, std::min(job.C, c + at_once)});
    return blocks;
}

// Compute n_sums sums of each channel, then what follows from them, then do what needs it, while maps are
// still in a cache: first(block, sums), finish(c0, c1, totals n_sums (c1 - c0)), second(block).
template <class A, bool Last, class First, class Finish, class Second>
void summed(const Job& job, int threads, int64_t n_sums, First first, Finish finish, Second second) {
    const auto blocks = blocks_of(job, threads, n_sums);
    const int64_t n_blocks = blocks.size();
    if constexpr (!Last) {
        parallel(threads, n_blocks, goes_back(job), [&](int64_t i) {
            const Block& block = blocks[i];
            std::vector<double> totals(n_sums * (block.c1 - block.c0));
            Sums<A, Last> sums(job, block, n_sums, totals.data());
            first(block, sums);
            sums.flush();
            finish(block.c0, block.c1, totals.data());
            second(block);
        });
    } else {
        const int64_t n = n_sums * job.C;
        std::vector<A> of_blocks(n_blocks * n);
        parallel(threads, n_blocks, goes_back(job), [&](int64_t i) {
            std::vector<double> totals(n);
            Sums<A, Last> sums(job, blocks[i], n_sums, totals.data());
            first(blocks[i], sums);
            sums.flush();
            std::copy(totals.begin(), totals.end(), of_blocks.begin() + i * n);
        });
        std::vector<double> totals(n);
        for (int64_t i = 0; i < n_blocks; ++i)
            for (int64_t k = 0; k < n; ++k) totals[k] += of_blocks[i * n + k];
        finish(0, job.C, totals.data());
        parallel(threads, n_blocks, !goes_back(job), [&](int64_t i) { second(blocks[i]); });
    }
}

// The parameters a backend gets without a type.
template <class A>
INLINE const A* in(const void* p) {
    return static_cast<const A*>(p);
}
template <class A>
INLINE A* to(void* p) {
    return static_cast<A*>(p);
}

}  // namespace
