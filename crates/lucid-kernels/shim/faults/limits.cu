// More static shared memory than a kernel may have. In a file of its own, since the section counts for the file here.
extern "C" __global__ void KERNEL(static_shared_too_large)(const float* in, float* out, u32 n) {
    __shared__ float tile[12289 CORRECT(-1)];
    const u32 t = threadIdx.x;
    for (u32 i = t; i < n; i += 64) tile[i] = in[i];
    __syncthreads();
    out[t] = tile[n - 1 - t];
}
