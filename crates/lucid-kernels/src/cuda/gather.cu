// Rows of chosen segments, one after the other: a micro-batch out of activations that lie on the device.
//
// Contract: `Backend::gather_rows`; scalar twin: a copy of each range.
#include "device.cuh"

namespace {

constexpr u32 THREADS = 256;

}  // namespace

// Segment s of out, rows offsets[s] .. offsets[s + 1], gets the rows of values from starts[s] on. Grid: (segments, shares).
extern "C" __global__ void __launch_bounds__(THREADS)
gather_rows(const float* __restrict__ values, const u64* __restrict__ starts, const u64* __restrict__ offsets, u32 d,
            float* __restrict__ out) {
    const u64 segment = blockIdx.x, first = offsets[segment] * d, len = (offsets[segment + 1] - offsets[segment]) * d;
    const float* from = values + starts[segment] * d;
    for (u64 at = u64(blockIdx.y) * THREADS + threadIdx.x; at < len; at += u64(gridDim.y) * THREADS) out[first + at] = from[at];
}
