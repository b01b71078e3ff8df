// What every kernel includes first: names for types, shared memory, bf16 bits and asynchronous copies.
// NVRTC compiles it without any NVIDIA header; with LUCID_SHIM a C++ compiler gives the same names through shim.h.
#pragma once

#ifdef LUCID_SHIM
#include "shim.h"
#else

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

// The block's dynamic shared memory as `T* name`, aligned to 16 bytes. A macro because `extern __shared__` has no twin on
// the CPU; all uses in a kernel name the same bytes.
#define DYN_SHARED(T, name)                                       \
    extern __shared__ __align__(16) u8 lucid_dynamic_shared[]; \
    T* name = reinterpret_cast<T*>(lucid_dynamic_shared)

// 16 bytes from global to shared memory, zeros if not `valid` (the source is then not read). Both 16-byte aligned. The
// bytes are there after cp_async_commit and cp_async_wait, for other threads after a barrier that follows the wait.
__device__ inline void cp_async_16(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
    const u32 bytes = valid ? 16 : 0;
    asm volatile(
        "{ .reg .u64 at; .reg .u32 to; cvta.to.shared.u64 at, %0; cvt.u32.u64 to, at;\n"
        "  cvta.to.global.u64 at, %1; cp.async.cg.shared.global [to], [at], 16, %2; }"
        ::"l"(shared), "l"(global), "r"(bytes) : "memory");
#else
    *static_cast<uint4*>(shared) = valid ? *static_cast<const uint4*>(global) : uint4{0, 0, 0, 0};
#endif
}

// Closes the group of this thread's copies since the last commit.
__device__ inline void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the newest N groups of this thread are still under way.
template <int N>
__device__ inline void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

#endif

// NVRTC has no <math.h> constants; a macro works in device code where a namespace-scope constant would not.
#define INFINITE __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fc00000u)

// The nearest bf16, ties to even; NaN stays NaN, its sign and upper payload kept, as the `half` crate rounds.
__device__ inline u16 bf16_round(float x) {
    const u32 bits = __float_as_uint(x);
    // Rounding would carry a NaN with a full payload into an infinity.
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<u16>(bits >> 16 | 0x40);
    return static_cast<u16>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

__device__ inline float bf16_value(u16 bits) { return __uint_as_float(static_cast<u32>(bits) << 16); }
