// Sums over a block, the same bits whatever the order its warps run in.
#pragma once
#include "device.cuh"
#include "warp.cuh"

// Sum over all threads of a block whose size is a multiple of 32; every thread gets it. `scratch`: 32 slots of shared
// memory, free again at the next __syncthreads.
template <typename T>
__device__ T block_sum(T value, T* scratch) {
    value = warp_sum(value);
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    // An earlier call's readers may still be at it.
    __syncthreads();
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    return warp_sum(lane < blockDim.x / 32 ? scratch[lane] : T(0));
}
