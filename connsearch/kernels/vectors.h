// Vectors of a map's values: of type T in memory, float16 and bfloat16 too, of type A = Acc<T> in registers.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

struct BFloat16 {
    uint16_t bits;
};
struct Float16 {
    uint16_t bits;
};

#ifndef VALUE
#define VALUE float  // or double, BFloat16, Float16: a library computes with one type of maps
#endif
using Value = VALUE;

template <class T>
using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class A>
struct VecOf {
    typedef A type __attribute__((vector_size(VECTOR_BYTES)));
};
template <class A>
using Vec = typename VecOf<A>::type;
template <class A>
constexpr int64_t LANES = VECTOR_BYTES / sizeof(A);

typedef uint32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t HalfBits __attribute__((vector_size(VECTOR_BYTES / 2)));

// ---- Loading and storing vectors: whole ones, and the last of a segment, which is not full.

struct Whole {};
struct Part {
    int n;  // values in it; the others read as 0 and are not written
};

template <class V, class T>
INLINE V raw(const T* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

INLINE Vec<float> load(const float* p, Whole = {}) { return raw<Vec<float>>(p); }
INLINE Vec<double> load(const double* p, Whole = {}) { return raw<Vec<double>>(p); }

INLINE Vec<float> widen(HalfBits half, BFloat16) {
    return (Vec<float>)(__builtin_convertvector(half, Bits) << 16);
}
INLINE Vec<float> widen(HalfBits half, Float16) {
#if VECTOR_BYTES == 64
    return (Vec<float>)_mm512_cvtph_ps((__m256i)half);
#elif defined(__F16C__) && VECTOR_BYTES == 32
    return (Vec<float>)_mm256_cvtph_ps((__m128i)half);
#else
    Vec<float> v;
    for (int k = 0; k < LANES<float>; ++k) {
        _Float16 value;
        const uint16_t bits = half[k];
        std::memcpy(&value, &bits, sizeof value);
        v[k] = static_cast<float>(value);
    }
    return v;
#endif
}
INLINE HalfBits narrow(Vec<float> v, BFloat16) {  // to the nearest, ties to even; NaN stays NaN
    const Bits bits = (Bits)v;
    const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Bits nan = Bits{} + 0x7fc0;
    return __builtin_convertvector(v == v ? rounded : nan, HalfBits);
}
INLINE HalfBits narrow(Vec<float> v, Float16) {
#if VECTOR_BYTES == 64
    return (HalfBits)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__) && VECTOR_BYTES == 32
    return (HalfBits)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    HalfBits half;
    for (int k = 0; k < LANES<float>; ++k) {
        const _Float16 value = static_cast<_Float16>(v[k]);
        uint16_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        half[k] = bits;
    }
    return half;
#endif
}

template <class T>
INLINE Vec<float> load(const T* p, Whole = {}) {
    return widen(raw<HalfBits>(p), T{});
}

INLINE void store(float* p, Vec<float> v, Whole = {}) { std::memcpy(p, &v, sizeof v); }
INLINE void store(double* p, Vec<double> v, Whole = {}) { std::memcpy(p, &v, sizeof v); }
template <class T>
INLINE void store(T* p, Vec<float> v, Whole = {}) {
    const HalfBits half = narrow(v, T{});
    std::memcpy(p, &half, sizeof half);
}

#if VECTOR_BYTES == 64
INLINE Vec<float> load(const float* p, Part part) {
    return (Vec<float>)_mm512_maskz_loadu_ps((1u << part.n) - 1, p);
}
INLINE Vec<double> load(const double* p, Part part) {
    return (Vec<double>)_mm512_maskz_loadu_pd((1u << part.n) - 1, p);
}
template <class T>
INLINE Vec<float> load(const T* p, Part part) {
    return widen((HalfBits)_mm256_maskz_loadu_epi16((1u << part.n) - 1, p), T{});
}
INLINE void store(float* p, Vec<float> v, Part part) {
    _mm512_mask_storeu_ps(p, (1u << part.n) - 1, (__m512)v);
}
INLINE void store(double* p, Vec<double> v, Part part) {
    _mm512_mask_storeu_pd(p, (1u << part.n) - 1, (__m512d)v);
}
template <class T>
INLINE void store(T* p, Vec<float> v, Part part) {
    _mm256_mask_storeu_epi16(p, (1u << part.n) - 1, (__m256i)narrow(v, T{}));
}
#else
template <class T>
INLINE Vec<Acc<T>> load(const T* p, Part part) {
    T values[LANES<Acc<T>>] = {};
    for (int k = 0; k < part.n; ++k) values[k] = p[k];
    return load(values);
}
template <class T>
INLINE void store(T* p, Vec<Acc<T>> v, Part part) {
    T values[LANES<Acc<T>>];
    store(values, v);
    for (int k = 0; k < part.n; ++k) p[k] = values[k];
}
#endif

template <class V>
INLINE V kept(V v, Whole) {
    return v;
}
template <class V>
INLINE V kept(V v, Part part) {  // with zeros where there is no value
    constexpr int n = sizeof(V) / sizeof(v[0]);
    for (int k = 0; k < n; ++k) v[k] = k < part.n ? v[k] : 0;
    return v;
}

template <class A>
INLINE Vec<A> all(A value) {
    return Vec<A>{} + value;
}
template <class V>
INLINE V activated(V v, bool relu) {  // NaN stays NaN
    return relu ? (v < 0 ? V{} : v) : v;
}
template <class A>
INLINE double total(const A* lanes) {
    double sum = 0;
    for (int64_t k = 0; k < LANES<A>; ++k) sum += lanes[k];
    return sum;
}

// Call f(i, Whole or Part) for the vectors of a segment of n values.
template <class A, class F>
INLINE void vectors(int64_t n, F f) {
    int64_t i = 0;
    for (; i + LANES<A> <= n; i += LANES<A>) f(i, Whole{});
    if (i < n) f(i, Part{static_cast<int>(n - i)});
}

}  // namespace
