// Kernels with one fault each, and their clean twins: compiled twice, CORRECT(…) is there in the twin only. The twins
// show that a check does not cry wolf, the others that it can cry at all. The table of what must be found: runner.cpp.
#include "mma.cuh"
#include "warp.cuh"

// Each half-step reads what the other threads wrote in the one before.
extern "C" __global__ void KERNEL(missing_syncthreads)(const float* in, float* out, u32) {
    __shared__ float u[64], v[64];
    const u32 t = threadIdx.x;
    v[t] = 1.0f;
    __syncthreads();
    for (u32 round = 0; round < 4; round++) {
        float sum = 0.0f;
        for (u32 j = 0; j < 64; j++) sum += in[t * 64 + j] * v[j];
        u[t] = 1.0f / sum;
        CORRECT(__syncthreads());
        sum = 0.0f;
        for (u32 i = 0; i < 64; i++) sum += in[i * 64 + t] * u[i];
        v[t] = 1.0f / sum;
        __syncthreads();
    }
    out[t] = u[t] * v[t];
}

// A tiled product with a triangular matrix: nobody reads what a lower thread loads, so only an order that lets higher
// threads run ahead overwrites a tile in use.
extern "C" __global__ void KERNEL(missing_syncthreads_in_gemm)(const float* in, float* out, u32) {
    __shared__ float tile[64];
    const u32 t = threadIdx.x;
    float sum = 0.0f;
    for (u32 step = 0; step < 8; step++) {
        tile[t] = in[step * 64 + t];
        __syncthreads();
        for (u32 k = t; k < 64; k++) sum += tile[k] * in[k * 64 + t];
        CORRECT(__syncthreads());
    }
    out[t] = sum;
}

// A shuffle brings the lanes together but orders no memory; no order of fibers shows that.
extern "C" __global__ void KERNEL(missing_syncwarp)(const float* in, float* out, u32) {
    __shared__ float list[64];
    const u32 t = threadIdx.x;
    list[t] = in[t];
    const float first = __shfl_sync(0xffffffffu, in[t], 0);
    CORRECT(__syncwarp());
    out[t] = list[t ^ 1] + first;
}

extern "C" __global__ void KERNEL(missing_cp_async_wait)(const float* in, float* out, u32) {
    DYN_SHARED(float, tile);
    const u32 t = threadIdx.x;
    cp_async_16(tile + t * 4, in + t * 4, true);
    cp_async_commit();
    CORRECT(cp_async_wait<0>());
    __syncthreads();
    out[t] = tile[(t * 4 + 5) % 256];
}

// Waiting for all but the newest group, and then reading the newest.
extern "C" __global__ void KERNEL(cp_async_wait_too_few)(const float* in, float* out, u32) {
    DYN_SHARED(float, tile);
    const u32 t = threadIdx.x;
    for (u32 stage = 0; stage < 2; stage++) {
        if (t < 32) cp_async_16(tile + stage * 128 + t * 4, in + stage * 128 + t * 4, true);
        cp_async_commit();
    }
    cp_async_wait<1>();
    CORRECT(cp_async_wait<0>());
    __syncthreads();
    out[t] = tile[128 + t];
}

extern "C" __global__ void KERNEL(two_writers)(const float* in, float* out, u32) {
    if (CORRECT(threadIdx.x == 0 &&) threadIdx.x < 2) out[0] = in[0];
    if (threadIdx.x > 1) out[threadIdx.x] = 0.0f;
}

extern "C" __global__ void KERNEL(divergent_barrier)(const float* in, float* out, u32) {
    const u32 t = threadIdx.x;
    if (CORRECT(true ||) t < 32) {
        __syncthreads();
        out[t] = in[t];
    } else {
        __syncthreads();
        out[t] = in[t];
    }
}

extern "C" __global__ void KERNEL(early_return)(const float* in, float* out, u32) {
    const u32 t = threadIdx.x;
    if (CORRECT(false &&) t >= 50) return;
    __syncthreads();
    out[t] = in[t];
}

extern "C" __global__ void KERNEL(lane_not_in_mask)(const float* in, float* out, u32) {
    const u32 t = threadIdx.x;
    const u32 half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    out[t] = __shfl_xor_sync(0x0000ffffu CORRECT(^ 0x0000ffffu ^ half), in[t], 1);
}

extern "C" __global__ void KERNEL(lane_never_comes)(const float* in, float* out, u32) {
    const u32 t = threadIdx.x;
    out[t] = 0.0f;
    if (CORRECT(false &&) t % 32 == 7) return;
    out[t] = warp_sum(in[t]);
}

// Opaque, or UBSan would know the size of a static array where it is read, and leave nothing for ASan to find.
__device__ __attribute__((noipa)) float element(const float* from, u32 i) { return from[i]; }

// What is read out of bounds must not reach the result, or a plain run would depend on the heap.
extern "C" __global__ void KERNEL(outside_global)(const float* in, float* out, u32 n) {
    const u32 t = threadIdx.x;
    out[t] = in[n CORRECT(-64) + t] == 0.12345f ? 1.0f : 2.0f;
}

extern "C" __global__ void KERNEL(outside_dynamic_shared)(const float* in, float* out, u32) {
    DYN_SHARED(float, tile);
    const u32 t = threadIdx.x;
    for (u32 i = t; i < 256; i += 64) tile[i] = in[i];
    __syncthreads();
    out[t] = tile[t + 193 CORRECT(-1)] == 0.12345f ? 1.0f : 2.0f;
}

extern "C" __global__ void KERNEL(outside_static_shared)(const float* in, float* out, u32 n) {
    __shared__ float tile[64];
    const u32 t = threadIdx.x;
    tile[t] = in[t];
    __syncthreads();
    out[t] = element(tile, t + n / 4096 CORRECT(-1)) == 0.12345f ? 1.0f : 2.0f;
}

// Within the array's memory and beyond a row's end: no business of AddressSanitizer's, but of the language's.
extern "C" __global__ void KERNEL(outside_row)(const float* in, float* out, u32 n) {
    __shared__ float tile[2][64];
    const u32 t = threadIdx.x;
    tile[0][t] = tile[1][t] = in[t];
    __syncthreads();
    out[t] = tile[0][t + n / 4096 CORRECT(-1)] == 0.12345f ? 1.0f : 2.0f;
}

extern "C" __global__ void KERNEL(copy_outside_shared)(const float* in, float* out, u32) {
    DYN_SHARED(float, tile);
    const u32 t = threadIdx.x;
    cp_async_16(tile + (t + 1 CORRECT(-1)) * 4, in + t * 4, true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    out[t] = tile[t];
}

// A row of ldmatrix begins at a multiple of 16 bytes.
extern "C" __global__ void KERNEL(misaligned_ldmatrix)(const float* in, float* out, u32) {
    DYN_SHARED(float, tile);
    const u32 t = threadIdx.x;
    for (u32 i = t; i < 256; i += 64) tile[i] = in[i];
    __syncthreads();
    u32 r[4];
    ldmatrix_x4(r, tile + t % 32 * 4 + 1 CORRECT(-1));
    out[t] = __uint_as_float(r[0]);
}
