// CUDA's language for a C++ compiler: what a kernel finds predefined under NVRTC. shim.cpp runs the threads of a block
// as fibers. Lists of plain functions are in builtins.h.
#pragma once

#include <cmath>
#include <limits>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>
#include <utility>

#ifndef LUCID_SHIM
#error "compile with -DLUCID_SHIM"
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
// As on the device; uint64_t is `unsigned long`, another type for an overload.
typedef unsigned long long u64;
typedef int32_t i32;
typedef long long i64;

// ---- words of the language -----------------------------------------------------------------------------------------

#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
// g++ refuses the standard spelling between `static` and the type, where `__shared__ alignas(16) T x` puts it.
#define alignas(n) __attribute__((aligned(n)))
#define __builtin_assume(condition) \
    do {                            \
        if (!(condition)) __builtin_unreachable(); \
    } while (0)
#ifdef __clang__
#define __global__ __attribute__((internal_linkage))
#else
// Compiled with -fwhole-program, so that a file keeps one kernel and only its shared memory.
#define __global__
#endif

// Shared memory lies in a section for each kernel: its bounds give the size, and it is filled before each block.
#define SHIM_TEXT_(x) #x
#define SHIM_TEXT(x) SHIM_TEXT_(x)
#define SHIM_JOIN_(a, b) a##b
#define SHIM_JOIN(a, b) SHIM_JOIN_(a, b)
#ifndef LUCID_SHIM_SECTION
#define LUCID_SHIM_SECTION none
#endif
#define __shared__ static __attribute__((section("cushared_" SHIM_TEXT(LUCID_SHIM_SECTION))))
#define DYN_SHARED(T, name) T* name = static_cast<T*>(lucid_shim_dynamic())

// The fields lie in one object that the runtime rewrites whenever another thread goes on.
struct dim3 {
    unsigned int x, y, z;
};
extern "C" dim3 lucid_shim_thread, lucid_shim_block, lucid_shim_block_dim, lucid_shim_grid_dim;
#define threadIdx lucid_shim_thread
#define blockIdx lucid_shim_block
#define blockDim lucid_shim_block_dim
#define gridDim lucid_shim_grid_dim
constexpr int warpSize = 32;

// ---- the runtime ---------------------------------------------------------------------------------------------------

// Where in a kernel a call stands, for the messages and to tell two barriers apart.
struct ShimAt {
    const char* file;
    int line;
};
#define SHIM_AT ShimAt at = {__builtin_FILE(), __builtin_LINE()}

enum ShimOp {
    SHIM_SYNCTHREADS, SHIM_SYNCTHREADS_COUNT, SHIM_SYNCTHREADS_AND, SHIM_SYNCTHREADS_OR,
    SHIM_SYNCWARP, SHIM_SHFL, SHIM_SHFL_XOR, SHIM_SHFL_UP, SHIM_SHFL_DOWN, SHIM_BALLOT, SHIM_ANY, SHIM_ALL,
    SHIM_MATCH_ANY, SHIM_GATHER,
};

struct ShimWords {
    u32 words[6];
};

extern "C" {
void* lucid_shim_dynamic();
int lucid_shim_barrier(ShimOp op, int predicate, ShimAt at);
u64 lucid_shim_warp(ShimOp op, u32 mask, u64 value, u32 source, ShimAt at);
u32 lucid_shim_lane();
// Sometimes lets another thread go on, in random order.
void lucid_shim_preempt();
[[noreturn]] void lucid_shim_fault(const char* call, const char* problem, const void* address, ShimAt at);
bool lucid_shim_is_shared(const void* at, u64 bytes);
bool lucid_shim_copy_later();
void lucid_shim_copy_push(void* to, const u32* data);
void lucid_shim_copy_commit();
bool lucid_shim_copy_pop(int keep, void** to, u32* data);
// Every lane's words, until the lane's next but one gathering.
const ShimWords* lucid_shim_gather(const u32* own, u32 count, ShimAt at);
void lucid_shim_ldmatrix(u32* r, const u32* own_row, bool transposed, ShimAt at);
void lucid_shim_mma_bf16(float* c, const u32* a, const u32* b, ShimAt at);
}

struct ShimKernel {
    const char* name;
    void (*call)(void** args);
    char* shared_begin;
    char* shared_end;
};

template <typename... A, size_t... I>
inline void shim_call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(args[I])...);
}
template <typename... A>
inline void shim_call(void (*kernel)(A...), void** args) {
    shim_call(kernel, args, std::index_sequence_for<A...>{});
}

// Makes a kernel known as `lucid_shim_kernel_<name>`. The bounds are weak: a kernel without shared memory has no section.
#define LUCID_SHIM_ENTRY(kernel)                                                                                       \
    extern "C" char SHIM_JOIN(__start_cushared_, LUCID_SHIM_SECTION)[] __attribute__((weak));                          \
    extern "C" char SHIM_JOIN(__stop_cushared_, LUCID_SHIM_SECTION)[] __attribute__((weak));                           \
    static void shim_call_##kernel(void** args) { shim_call(kernel, args); }                                           \
    extern "C" __attribute__((externally_visible)) const ShimKernel lucid_shim_kernel_##kernel = {                     \
        #kernel, shim_call_##kernel, SHIM_JOIN(__start_cushared_, LUCID_SHIM_SECTION),                                 \
        SHIM_JOIN(__stop_cushared_, LUCID_SHIM_SECTION)};

// ---- barriers ------------------------------------------------------------------------------------------------------

inline void __syncthreads(SHIM_AT) { lucid_shim_barrier(SHIM_SYNCTHREADS, 0, at); }
inline int __syncthreads_count(int predicate, SHIM_AT) {
    return lucid_shim_barrier(SHIM_SYNCTHREADS_COUNT, predicate, at);
}
inline int __syncthreads_and(int predicate, SHIM_AT) { return lucid_shim_barrier(SHIM_SYNCTHREADS_AND, predicate, at); }
inline int __syncthreads_or(int predicate, SHIM_AT) { return lucid_shim_barrier(SHIM_SYNCTHREADS_OR, predicate, at); }
inline void __syncwarp(u32 mask = 0xffffffffu, SHIM_AT) { lucid_shim_warp(SHIM_SYNCWARP, mask, 0, 0, at); }

// ---- exchange within a warp ----------------------------------------------------------------------------------------

template <typename T>
inline T shim_shuffle(ShimOp op, u32 mask, T value, u32 source, ShimAt at) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    u64 bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = lucid_shim_warp(op, mask, bits, source, at);
    memcpy(&value, &bits, sizeof(T));
    return value;
}
template <typename T>
inline T __shfl_sync(u32 mask, T value, int from, int width = 32, SHIM_AT) {
    const u32 first = lucid_shim_lane() & ~(width - 1u);
    return shim_shuffle(SHIM_SHFL, mask, value, first | (u32(from) & (width - 1u)), at);
}
template <typename T>
inline T __shfl_xor_sync(u32 mask, T value, int bits, int width = 32, SHIM_AT) {
    const u32 lane = lucid_shim_lane(), last = lane | (width - 1u), from = lane ^ u32(bits);
    return shim_shuffle(SHIM_SHFL_XOR, mask, value, from <= last ? from : lane, at);
}
template <typename T>
inline T __shfl_up_sync(u32 mask, T value, u32 delta, int width = 32, SHIM_AT) {
    const u32 lane = lucid_shim_lane();
    return shim_shuffle(SHIM_SHFL_UP, mask, value, (lane & (width - 1u)) >= delta ? lane - delta : lane, at);
}
template <typename T>
inline T __shfl_down_sync(u32 mask, T value, u32 delta, int width = 32, SHIM_AT) {
    const u32 lane = lucid_shim_lane();
    return shim_shuffle(SHIM_SHFL_DOWN, mask, value, (lane & (width - 1u)) + delta < u32(width) ? lane + delta : lane, at);
}
inline u32 __ballot_sync(u32 mask, int predicate, SHIM_AT) {
    return u32(lucid_shim_warp(SHIM_BALLOT, mask, predicate != 0, 0, at));
}
inline int __any_sync(u32 mask, int predicate, SHIM_AT) {
    return lucid_shim_warp(SHIM_ANY, mask, predicate != 0, 0, at) != 0;
}
inline int __all_sync(u32 mask, int predicate, SHIM_AT) {
    return u32(lucid_shim_warp(SHIM_ALL, mask, predicate != 0, 0, at)) == mask;
}
template <typename T>
inline u32 __match_any_sync(u32 mask, T value, SHIM_AT) {
    return shim_shuffle(SHIM_MATCH_ANY, mask, u64(value), 0, at);
}
// Which lanes happen to be together is an accident of the hardware, so no test could hold for it.
u32 __activemask() = delete;

#include "builtins.h"

// ---- asynchronous copies -------------------------------------------------------------------------------------------

inline void shim_check_shared(const char* what, const void* start, u64 bytes, SHIM_AT) {
    if (!lucid_shim_is_shared(start, bytes)) lucid_shim_fault(what, "not inside shared memory", start, at);
    if (uintptr_t(start) % 16 != 0) lucid_shim_fault(what, "not a multiple of 16", start, at);
}

// The loads and stores stand here and not in the runtime, so that the sanitizers see them. Until it has landed the
// destination is poisoned: the device promises nothing about it.
inline void shim_store_16(void* to, const u32 (&data)[4]) {
    for (int i = 0; i < 4; i++) static_cast<u32*>(to)[i] = data[i];
}
inline void cp_async_16(void* shared, const void* global, bool valid, SHIM_AT) {
    shim_check_shared("cp_async_16", shared, 16, at);
    if (uintptr_t(global) % 16 != 0) lucid_shim_fault("cp_async_16", "not a multiple of 16", global, at);
    u32 data[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4 && valid; i++) data[i] = static_cast<const u32*>(global)[i];
    if (lucid_shim_copy_later()) {
        lucid_shim_copy_push(shared, data);
        for (u32& word : data) word = 0xffffffffu;
    }
    shim_store_16(shared, data);
}
inline void cp_async_commit() { lucid_shim_copy_commit(); }
template <int N>
inline void cp_async_wait() {
    void* to;
    u32 data[4];
    while (lucid_shim_copy_pop(N, &to, data)) shim_store_16(to, data);
}
