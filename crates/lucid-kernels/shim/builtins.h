// CUDA's plain device functions: vector types, bits, arithmetic, atomics. Included by shim.h.
#pragma once

// ---- vector types --------------------------------------------------------------------------------------------------

#define SHIM_VECTORS(T, name, align2, align4)                                              \
    struct name##2 {                                                                       \
        T x, y;                                                                            \
    } __attribute__((aligned(align2)));                                                    \
    struct name##3 {                                                                       \
        T x, y, z;                                                                         \
    };                                                                                     \
    struct name##4 {                                                                       \
        T x, y, z, w;                                                                      \
    } __attribute__((aligned(align4)));                                                    \
    inline name##2 make_##name##2(T x, T y) { return name##2{x, y}; }                      \
    inline name##3 make_##name##3(T x, T y, T z) { return name##3{x, y, z}; }              \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return name##4{x, y, z, w}; }
SHIM_VECTORS(float, float, 8, 16)
SHIM_VECTORS(double, double, 16, 16)
SHIM_VECTORS(int, int, 8, 16)
SHIM_VECTORS(unsigned int, uint, 8, 16)
SHIM_VECTORS(unsigned short, ushort, 4, 8)
SHIM_VECTORS(unsigned char, uchar, 2, 4)
SHIM_VECTORS(u64, ulonglong, 16, 16)
#undef SHIM_VECTORS

// ---- bits ----------------------------------------------------------------------------------------------------------

#define SHIM_REINTERPRET(name, To, From)                          \
    inline To name(From x) {                                      \
        static_assert(sizeof(To) == sizeof(From), "same size");   \
        To y;                                                     \
        memcpy(&y, &x, sizeof y);                                 \
        return y;                                                 \
    }
SHIM_REINTERPRET(__float_as_uint, u32, float)
SHIM_REINTERPRET(__float_as_int, int, float)
SHIM_REINTERPRET(__uint_as_float, float, u32)
SHIM_REINTERPRET(__int_as_float, float, int)
SHIM_REINTERPRET(__double_as_longlong, i64, double)
SHIM_REINTERPRET(__longlong_as_double, double, i64)
#undef SHIM_REINTERPRET

inline int __popc(u32 x) { return __builtin_popcount(x); }
inline int __popcll(u64 x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(i64 x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(u32(x)); }
inline int __clzll(i64 x) { return x == 0 ? 64 : __builtin_clzll(u64(x)); }
inline u32 __brev(u32 x) {
    u32 y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
inline u64 __brevll(u64 x) { return u64(__brev(u32(x))) << 32 | __brev(u32(x >> 32)); }
inline u32 __byte_perm(u32 x, u32 y, u32 selector) {
    const u64 bytes = u64(y) << 32 | x;
    u32 z = 0;
    for (int i = 0; i < 4; i++) {
        const u32 nibble = selector >> 4 * i & 15;
        const u32 byte = u32(bytes >> 8 * (nibble & 7)) & 255;
        z |= (nibble & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return z;
}
inline u32 __funnelshift_l(u32 low, u32 high, u32 by) { return u32(((u64(high) << 32 | low) << (by & 31)) >> 32); }
inline u32 __funnelshift_r(u32 low, u32 high, u32 by) { return u32((u64(high) << 32 | low) >> (by & 31)); }

// ---- integers ------------------------------------------------------------------------------------------------------

inline u32 __umulhi(u32 x, u32 y) { return u32(u64(x) * y >> 32); }
inline u64 __umul64hi(u64 x, u64 y) { return u64(static_cast<unsigned __int128>(x) * y >> 64); }
inline int __mulhi(int x, int y) { return int(i64(x) * y >> 32); }

// As the device has them: a mixed pair is compared as unsigned.
#define SHIM_MIN_MAX(R, A, B)                                     \
    inline R min(A a, B b) { return R(a) < R(b) ? R(a) : R(b); } \
    inline R max(A a, B b) { return R(a) > R(b) ? R(a) : R(b); }
SHIM_MIN_MAX(int, int, int)
SHIM_MIN_MAX(u32, u32, u32)
SHIM_MIN_MAX(u32, int, u32)
SHIM_MIN_MAX(u32, u32, int)
SHIM_MIN_MAX(i64, i64, i64)
SHIM_MIN_MAX(u64, u64, u64)
SHIM_MIN_MAX(u64, i64, u64)
SHIM_MIN_MAX(u64, u64, i64)
#undef SHIM_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// ---- floating point ------------------------------------------------------------------------------------------------

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __ddiv_rn(double x, double y) { return x / y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline float __double2float_rn(double x) { return float(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(u32 x) { return float(x); }
inline float __ull2float_rn(u64 x) { return float(x); }
inline double __ull2double_rn(u64 x) { return double(x); }

// The device's conversions saturate and send NaN to a fixed value, where C++ leaves both undefined.
template <typename To, typename From>
inline To shim_to_integer(From x) {
    using Limits = std::numeric_limits<To>;
    if (x != x) return sizeof(To) == 8 ? To(u64(1) << 63) : To(0);
    // max() + 1 is a power of two and exact in From, where max() itself may not be.
    if (x >= 2 * From(Limits::max() / 2 + 1)) return Limits::max();
    if (x <= From(Limits::min())) return Limits::min();
    return To(x);
}
inline int __float2int_rn(float x) { return shim_to_integer<int>(rintf(x)); }
inline int __float2int_rz(float x) { return shim_to_integer<int>(truncf(x)); }
inline int __float2int_rd(float x) { return shim_to_integer<int>(floorf(x)); }
inline int __float2int_ru(float x) { return shim_to_integer<int>(ceilf(x)); }
inline u32 __float2uint_rn(float x) { return shim_to_integer<u32>(rintf(x)); }
inline u32 __float2uint_rz(float x) { return shim_to_integer<u32>(truncf(x)); }
inline i64 __float2ll_rn(float x) { return shim_to_integer<i64>(rintf(x)); }
inline i64 __double2ll_rn(double x) { return shim_to_integer<i64>(rint(x)); }
inline u64 __double2ull_rn(double x) { return shim_to_integer<u64>(rint(x)); }

// ---- memory --------------------------------------------------------------------------------------------------------

#define SHIM_LOAD(name) \
    template <typename T> inline T name(const T* from) { return *from; }
#define SHIM_STORE(name) \
    template <typename T> inline void name(T* to, std::common_type_t<T> value) { *to = value; }
SHIM_LOAD(__ldg)
SHIM_LOAD(__ldcg)
SHIM_LOAD(__ldcs)
SHIM_LOAD(__ldca)
SHIM_STORE(__stcg)
SHIM_STORE(__stcs)
SHIM_STORE(__stwt)
#undef SHIM_LOAD
#undef SHIM_STORE

// A fence orders nothing between two threads by itself, so ThreadSanitizer learns no edge from it.
inline void __threadfence() { __asm__ volatile("" ::: "memory"); }
inline void __threadfence_block() { __asm__ volatile("" ::: "memory"); }
inline void __threadfence_system() { __asm__ volatile("" ::: "memory"); }

// Relaxed as on the device. No float addition: its result would depend on the order (rules of the house).
template <typename T, typename Change>
inline T shim_atomic(T* at, Change change) {
    lucid_shim_preempt();
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
#define SHIM_ATOMICS(T)                                                                                    \
    inline T atomicAdd(T* at, T x) { return shim_atomic(at, [x](T old) { return T(u64(old) + u64(x)); }); } \
    inline T atomicMin(T* at, T x) { return shim_atomic(at, [x](T old) { return x < old ? x : old; }); }   \
    inline T atomicMax(T* at, T x) { return shim_atomic(at, [x](T old) { return x > old ? x : old; }); }   \
    inline T atomicAnd(T* at, T x) { return shim_atomic(at, [x](T old) { return T(old & x); }); }          \
    inline T atomicOr(T* at, T x) { return shim_atomic(at, [x](T old) { return T(old | x); }); }           \
    inline T atomicXor(T* at, T x) { return shim_atomic(at, [x](T old) { return T(old ^ x); }); }          \
    inline T atomicExch(T* at, T x) { return shim_atomic(at, [x](T) { return x; }); }                      \
    inline T atomicCAS(T* at, T expected, T x) {                                                           \
        return shim_atomic(at, [expected, x](T old) { return old == expected ? x : old; });                \
    }
SHIM_ATOMICS(int)
SHIM_ATOMICS(u32)
SHIM_ATOMICS(u64)
#undef SHIM_ATOMICS
inline u32 atomicSub(u32* at, u32 x) { return atomicAdd(at, 0u - x); }
inline int atomicSub(int* at, int x) { return atomicAdd(at, int(0u - u32(x))); }
inline u32 atomicInc(u32* at, u32 last) { return shim_atomic(at, [last](u32 old) { return old >= last ? 0 : old + 1; }); }
float atomicAdd(float*, float) = delete;
double atomicAdd(double*, double) = delete;

#define assert(condition) \
    ((condition) ? void() : lucid_shim_fault("assert", #condition, nullptr, ShimAt{__FILE__, __LINE__}))
inline void __trap(SHIM_AT) { lucid_shim_fault("__trap", "reached", nullptr, at); }
inline void __nanosleep(u32) { lucid_shim_preempt(); }
