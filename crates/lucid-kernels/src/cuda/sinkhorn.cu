// Sinkhorn's iteration (spec 3) and its derivative through every round: one block a pair, one launch.
//
// Contract: `Backend::sinkhorn`, `Backend::sinkhorn_backward`; scalar twin: scalar/sinkhorn.rs. K = exp(−C/ε) lies in shared
// memory where the launcher found room for the longest pair, else in `room` [cells] in global memory. 512 threads,
// because K leaves room for one block on an SM of 100 KiB (196 × 64 patches and words), and 16 of 48 warps are a third.
#include "sinkhorn.cuh"

// The plan of every pair: see `solve`; pairs are counted from first_pair.
extern "C" __global__ void __launch_bounds__(THREADS)
sinkhorn_forward(const float* __restrict__ cost, const float* __restrict__ row, const float* __restrict__ column,
                 const u64* __restrict__ vision, const u64* __restrict__ text, const u64* __restrict__ cells,
                 u32 longest_rows, u32 longest_columns, float epsilon, u32 iterations, double tolerance, float mass,
                 float start, float* __restrict__ room, float* __restrict__ plan, float* __restrict__ plan_u,
                 float* __restrict__ plan_v, float* __restrict__ row_sums, float* __restrict__ column_sums,
                 double* __restrict__ marginal_error, double* __restrict__ entropy, double* __restrict__ transport_cost,
                 u32* __restrict__ made_out, u64 first_pair, u64* __restrict__ status) {
    DYN_SHARED(float, shared);
    const u64 pair = blockIdx.x;
    const u32 rows = u32(vision[pair + 1] - vision[pair]), columns = u32(text[pair + 1] - text[pair]);
    const Problem p = lay_out(shared, longest_rows, longest_columns, room ? room + cells[pair] : nullptr, rows, columns);
    cost += cells[pair];
    kernel_matrix(p, cost, epsilon);
    const PlanOut out = {plan + cells[pair],   plan_u + vision[pair],      plan_v + text[pair],
                         row_sums + vision[pair], column_sums + text[pair],   marginal_error + pair,
                         entropy + pair,       transport_cost + pair,      made_out + pair};
    solve(p, cost, row + vision[pair], column + text[pair], iterations, tolerance, mass, start, first_pair + pair, status, out);
}

// From d_plan to d_cost += and d_column +=. The rounds are made again and kept in `history`, then taken back one by one:
// v = c (1 − m) ⊘ t, t = Kᵀ u gives dt = −dv·v/t, s = m / Σu gives dΣ = −ds·s/Σu, and u = r ⊘ q, q = K v' + s' gives
// dq = −du·u/q with du = K dt + dΣ. At the end dK_ij = dΠ_ij u_i v_j + Σ_rounds (u_i dt_j + dq_i v'_j).
// history: for each round, and for the end, u, q, dq [rows of all pairs], v', dt [columns of all pairs] and s [pairs].
extern "C" __global__ void __launch_bounds__(THREADS)
sinkhorn_backward(const float* __restrict__ cost, const float* __restrict__ row, const float* __restrict__ column,
                  const u64* __restrict__ vision, const u64* __restrict__ text, const u64* __restrict__ cells, u32 pairs,
                  u32 longest_rows, u32 longest_columns, float epsilon, float mass, float start,
                  const u32* __restrict__ made, const float* __restrict__ d_plan, float* __restrict__ room,
                  float* __restrict__ history, float* __restrict__ d_cost, float* __restrict__ d_column) {
    DYN_SHARED(float, shared);
    __shared__ float narrow[32];
    const u64 pair = blockIdx.x;
    const u32 rounds = made[pair];
    if (rounds == 0) return;
    const u32 rows = u32(vision[pair + 1] - vision[pair]), columns = u32(text[pair + 1] - text[pair]);
    const u64 all_rows = vision[pairs], all_columns = text[pairs];
    const u64 stride = 3 * all_rows + 2 * all_columns + pairs;
    auto kept_u = [&](u32 round) { return history + round * stride + vision[pair]; };
    auto kept_q = [&](u32 round) { return history + round * stride + all_rows + vision[pair]; };
    auto kept_dq = [&](u32 round) { return history + round * stride + 2 * all_rows + vision[pair]; };
    auto kept_v = [&](u32 round) { return history + round * stride + 3 * all_rows + text[pair]; };
    auto kept_dt = [&](u32 round) { return history + round * stride + 3 * all_rows + all_columns + text[pair]; };
    auto kept_s = [&](u32 round) { return history + round * stride + 3 * all_rows + 2 * all_columns + pair; };
    Problem p = lay_out(shared, longest_rows, longest_columns, room ? room + cells[pair] : nullptr, rows, columns);
    cost += cells[pair], d_plan += cells[pair], d_cost += cells[pair];
    row += vision[pair], column += text[pair], d_column += text[pair];

    kernel_matrix(p, cost, epsilon);
    for (u32 j = threadIdx.x; j < columns; j += THREADS) p.v[j] = 1.0f;
    __syncthreads();
    float s = start;
    for (u32 round = 0; round < rounds; round++) {
        times(p, p.v, s, p.q);
        for (u32 i = threadIdx.x; i < rows; i += THREADS) {
            p.u[i] = row[i] / p.q[i];
            kept_u(round)[i] = p.u[i];
            kept_q(round)[i] = p.q[i];
        }
        __syncthreads();
        transpose_times(p, p.u, p.t);
        for (u32 j = threadIdx.x; j < columns; j += THREADS) {
            kept_v(round)[j] = p.v[j];
            p.v[j] = column[j] * (1.0f - mass) / p.t[j];
        }
        s = mass > 0.0f ? mass / total(p.u, rows, narrow) : 0.0f;
        if (threadIdx.x == 0) *kept_s(round) = s;
        __syncthreads();
    }

    for (u32 j = threadIdx.x; j < columns; j += THREADS) kept_v(rounds)[j] = p.v[j];

    // Π = u K v: d_u in q, d_v in t.
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u32 i = warp; i < rows; i += WARPS) {
        float sum = 0.0f;
        for (u32 j = lane; j < columns; j += 32) sum += d_plan[u64(i) * columns + j] * p.k[u64(i) * columns + j] * p.v[j];
        sum = warp_sum(sum);
        if (lane == 0) p.q[i] = sum;
    }
    for (u32 j = lane; j < columns; j += 32) {
        float sum = 0.0f;
        for (u32 i = warp; i < rows; i += WARPS) sum += d_plan[u64(i) * columns + j] * p.k[u64(i) * columns + j] * p.u[i];
        p.partial[warp * columns + j] = sum;
    }
    __syncthreads();
    for (u32 j = threadIdx.x; j < columns; j += THREADS) {
        float sum = 0.0f;
        for (u32 w = 0; w < WARPS; w++) sum += p.partial[w * columns + j];
        p.t[j] = sum;
    }
    __syncthreads();
    // Π holds no entry of the sink.
    float d_sink = 0.0f;
    for (u32 round = rounds; round-- > 0;) {
        for (u32 i = threadIdx.x; i < rows; i += THREADS) p.u[i] = kept_u(round)[i];
        __syncthreads();
        transpose_times(p, p.u, p.v);
        // p.v: t; p.t: d_v, then dt.
        for (u32 j = threadIdx.x; j < columns; j += THREADS) {
            const float d_v = p.t[j], t = p.v[j];
            d_column[j] += d_v * (1.0f - mass) / t;
            p.t[j] = -d_v * kept_v(round + 1)[j] / t;
            kept_dt(round)[j] = p.t[j];
        }
        __syncthreads();
        const float sum_u = mass > 0.0f ? total(p.u, rows, narrow) : 1.0f;
        const float through_sink = mass > 0.0f ? -d_sink * *kept_s(round) / sum_u : 0.0f;
        float sink = 0.0f;
        for (u32 i = warp; i < rows; i += WARPS) {
            float sum = 0.0f;
            for (u32 j = lane; j < columns; j += 32) sum += p.k[u64(i) * columns + j] * p.t[j];
            // Π reaches u in the last round alone.
            sum = warp_sum(sum) + through_sink + (round + 1 == rounds ? p.q[i] : 0.0f);
            const float d_q = -sum * p.u[i] / kept_q(round)[i];
            if (lane == 0) {
                kept_dq(round)[i] = d_q;
                sink += d_q;
            }
        }
        d_sink = block_sum(sink, narrow);
        __syncthreads();
        for (u32 i = threadIdx.x; i < rows; i += THREADS) p.q[i] = kept_dq(round)[i];
        __syncthreads();
        transpose_times(p, p.q, p.t);
    }
    for (u32 at = threadIdx.x; at < rows * columns; at += THREADS) {
        const u32 i = at / columns, j = at % columns;
        float d_k = d_plan[at] * kept_u(rounds - 1)[i] * kept_v(rounds)[j];
        for (u32 round = 0; round < rounds; round++) {
            d_k += kept_u(round)[i] * kept_dt(round)[j] + kept_dq(round)[i] * kept_v(round)[j];
        }
        d_cost[at] -= d_k * p.k[at] / epsilon;
    }
}
