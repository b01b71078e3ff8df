// Rows of chosen segments, one after the other: a micro-batch out of activations that lie on the device. And rows as operands
// of `Precision::Bf16`.
//
// Contract: `Backend::gather_rows`; scalar twin: a copy of each range.
#include "device.cuh"
#include "split.cuh"
#include "wide.cuh"

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

// out[r] [stride] = rows[r] − subtract, rounded to bf16, zero behind d; stride is a multiple of 8. Eight columns a thread.
extern "C" __global__ void __launch_bounds__(THREADS)
round_rows(const float* __restrict__ rows, const float* __restrict__ subtract, u64 n, u32 d, u32 stride, u16* __restrict__ out) {
    const u32 groups = stride / 8;
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < n * groups; at += u64(gridDim.x) * THREADS) {
        const u32 x = u32(at % groups) * 8;
        const float* row = rows + at / groups * d;
        const bool aligned = d % 4 == 0;
        Eight value = aligned ? eight_columns<true>(row, x, d) : eight_columns<false>(row, x, d);
        if (subtract) {
            const Eight less = aligned ? eight_columns<true>(subtract, x, d) : eight_columns<false>(subtract, x, d);
#pragma unroll
            for (u32 i = 0; i < 8; i++) value.v[i] -= less.v[i];
        }
        const float(&v)[8] = value.v;
        *reinterpret_cast<uint4*>(out + at * 8) =
            uint4{rounded_pair(v[0], v[1]), rounded_pair(v[2], v[3]), rounded_pair(v[4], v[5]), rounded_pair(v[6], v[7])};
    }
}
