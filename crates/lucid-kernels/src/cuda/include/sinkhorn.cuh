// Sinkhorn's iteration of a pair by one block: what sinkhorn.cu and gcmt.cu share. K lies in shared memory, or in global
// memory where a pair is too large.
#pragma once
#include "block.cuh"

namespace {

constexpr u32 THREADS = 512;
constexpr u32 WARPS = THREADS / 32;

// One pair's problem and the vectors of an iteration, in shared memory.
struct Problem {
    float* k;        // [rows · columns]
    float* v;        // [columns]
    float* t;        // [columns]
    float* u;        // [rows]
    float* q;        // [rows]
    float* partial;  // [WARPS · columns]
    u32 rows, columns;
};

// Lays out a pair's arrays in dynamic shared memory, sized for `longest` rows and columns; K behind them or in `room`.
__device__ Problem lay_out(float* shared, u32 longest_rows, u32 longest_columns, float* room, u32 rows, u32 columns) {
    Problem p;
    p.v = shared;
    p.t = p.v + longest_columns;
    p.u = p.t + longest_columns;
    p.q = p.u + longest_rows;
    p.partial = p.q + longest_rows;
    p.k = room ? room : p.partial + WARPS * longest_columns;
    p.rows = rows;
    p.columns = columns;
    return p;
}

// out = K x (+ add), one warp a row.
__device__ void times(const Problem& p, const float* x, float add, float* out) {
    const u32 lane = threadIdx.x % 32;
    for (u32 i = threadIdx.x / 32; i < p.rows; i += WARPS) {
        float sum = 0.0f;
        for (u32 j = lane; j < p.columns; j += 32) sum += p.k[u64(i) * p.columns + j] * x[j];
        sum = warp_sum(sum);
        if (lane == 0) out[i] = sum + add;
    }
    __syncthreads();
}

// out = Kᵀ x: each warp adds every sixteenth row, then the warps are added in order. `x` null stands for ones.
__device__ void transpose_times(const Problem& p, const float* x, float* out) {
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u32 j = lane; j < p.columns; j += 32) {
        float sum = 0.0f;
        for (u32 i = warp; i < p.rows; i += WARPS) sum += p.k[u64(i) * p.columns + j] * (x ? x[i] : 1.0f);
        p.partial[warp * p.columns + j] = sum;
    }
    __syncthreads();
    for (u32 j = threadIdx.x; j < p.columns; j += THREADS) {
        float sum = 0.0f;
        for (u32 w = 0; w < WARPS; w++) sum += p.partial[w * p.columns + j];
        out[j] = sum;
    }
    __syncthreads();
}

__device__ void kernel_matrix(const Problem& p, const float* cost, float epsilon) {
    for (u32 at = threadIdx.x; at < p.rows * p.columns; at += THREADS) p.k[at] = expf(-cost[at] / epsilon);
    __syncthreads();
}

__device__ float total(const float* x, u32 count, float* scratch) {
    float sum = 0.0f;
    for (u32 at = threadIdx.x; at < count; at += THREADS) sum += x[at];
    return block_sum(sum, scratch);
}

// Σ_i |u_i q_i − r_i|.
__device__ double row_error(const Problem& p, const float* row, double* scratch) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < p.rows; i += THREADS) sum += double(fabsf(p.u[i] * p.q[i] - row[i]));
    return block_sum(sum, scratch);
}

// Where a pair's plan and its diagnostics go.
struct PlanOut {
    float* plan;        // [rows · columns]
    float* u;           // [rows]
    float* v;           // [columns]
    float* row_sums;    // [rows]
    float* column_sums; // [columns]
    double* marginal_error;
    double* entropy;
    double* transport_cost;
    u32* made;
};

// The plan of a pair whose K is in place: u = r ⊘ q, v = c (1 − m) ⊘ Kᵀ u, s = m / Σ u with q = K v + s, from v = 1 and
// s = `start` (the sink, 0 without one). K is overwritten. A pair whose K has an empty row or column lowers *status to
// `index` · 2³³ + axis · 2³² + place (row 0, column 1) and writes nothing else.
__device__ void solve(const Problem& p, const float* cost, const float* row, const float* column, u32 iterations,
                      double tolerance, float mass, float start, u64 index, u64* status, const PlanOut& out) {
    __shared__ double wide[32];
    __shared__ float narrow[32];
    __shared__ u64 empty;
    const u32 rows = p.rows, columns = p.columns;
    if (threadIdx.x == 0) empty = ~u64(0);
    for (u32 j = threadIdx.x; j < columns; j += THREADS) p.v[j] = 1.0f;
    __syncthreads();
    float s = start;
    times(p, p.v, 0.0f, p.q);
    transpose_times(p, nullptr, p.t);
    for (u32 i = threadIdx.x; i < rows; i += THREADS) {
        if (p.q[i] == 0.0f) atomicMin(&empty, index << 33 | i);
        p.q[i] += s;
    }
    for (u32 j = threadIdx.x; j < columns; j += THREADS) {
        if (p.t[j] == 0.0f) atomicMin(&empty, index << 33 | u64(1) << 32 | j);
    }
    __syncthreads();
    if (empty != ~u64(0)) {
        if (threadIdx.x == 0) atomicMin(status, empty);
        return;
    }
    u32 made = 0;
    double error = 0.0;
    while (made < iterations) {
        for (u32 i = threadIdx.x; i < rows; i += THREADS) p.u[i] = row[i] / p.q[i];
        __syncthreads();
        transpose_times(p, p.u, p.t);
        for (u32 j = threadIdx.x; j < columns; j += THREADS) p.v[j] = column[j] * (1.0f - mass) / p.t[j];
        s = mass > 0.0f ? mass / total(p.u, rows, narrow) : 0.0f;
        __syncthreads();
        times(p, p.v, s, p.q);
        made++;
        if (tolerance > 0.0) {
            error = row_error(p, row, wide);
            if (error < tolerance) break;
        }
    }
    error = row_error(p, row, wide);

    // Π = u K v, in place of K, with its sums.
    const u32 lane = threadIdx.x % 32;
    double disorder = 0.0, price = 0.0;
    for (u32 i = threadIdx.x / 32; i < rows; i += WARPS) {
        float sum = 0.0f;
        for (u32 j = lane; j < columns; j += 32) {
            const u64 at = u64(i) * columns + j;
            const float here = p.u[i] * p.k[at] * p.v[j];
            out.plan[at] = here;
            p.k[at] = here;
            sum += here;
            if (here > 0.0f) disorder -= double(here) * double(logf(here));
            if (fabsf(cost[at]) < INFINITE) price += double(cost[at]) * double(here);
        }
        sum = warp_sum(sum);
        if (lane == 0) {
            out.row_sums[i] = sum;
            out.u[i] = p.u[i];
        }
    }
    __syncthreads();
    transpose_times(p, nullptr, p.t);
    for (u32 j = threadIdx.x; j < columns; j += THREADS) {
        out.column_sums[j] = p.t[j];
        out.v[j] = p.v[j];
    }
    disorder = block_sum(disorder, wide);
    price = block_sum(price, wide);
    if (threadIdx.x == 0) {
        *out.marginal_error = error;
        *out.entropy = disorder;
        *out.transport_cost = price;
        *out.made = made;
    }
}

}  // namespace
