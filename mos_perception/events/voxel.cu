// Event voxelisation on a GPU. Counts live in device memory, so that one CUDA graph serves windows of any size; all loops
// stride over the grid. Every kernel gives what `voxel.py` gives, bit by bit. Not run on a GPU by us yet.
#include "voxel.h"

#define VOXEL_THREADS 256  // threads of a block of voxel_largest

static inline __device__ long long voxel_first() { return blockIdx.x * (long long)blockDim.x + threadIdx.x; }
static inline __device__ long long voxel_stride() { return (long long)gridDim.x * blockDim.x; }

// grid += the events x, y, p, t [*count] of the window.
extern "C" __global__ void voxel_events(int *grid, int *overflow, const unsigned short *x, const unsigned short *y,
                                        const unsigned char *p, const long long *t, const int *count, VoxelWindow window)
{
    for (long long i = voxel_first(); i < *count; i += voxel_stride())
        voxel_event(grid, overflow, window, x[i], y[i], p[i], t[i]);
}

// The same from the words of one raw `mono` packet: dt 0..31 ns, x 32..47, y 48..62, polarity 63.
extern "C" __global__ void voxel_mono(int *grid, int *overflow, const unsigned long long *words, const int *count,
                                      long long time_base, VoxelWindow window)
{
    for (long long i = voxel_first(); i < *count; i += voxel_stride()) {
        unsigned long long word = words[i];
        voxel_event(grid, overflow, window, (int)(word >> 32 & 0xFFFF), (int)(word >> 48 & 0x7FFF), (int)(word >> 63),
                    time_base + (long long)(word & 0xFFFFFFFFu));
    }
}

// *largest (0 at first) = greatest magnitude of the grid. Blocks of VOXEL_THREADS.
extern "C" __global__ void voxel_largest(const int *grid, int cells, int *largest)
{
    __shared__ int part[VOXEL_THREADS];
    int most = 0;
    for (long long i = voxel_first(); i < cells; i += voxel_stride()) {
        int value = grid[i] < 0 ? -grid[i] : grid[i];
        most = value > most ? value : most;
    }
    part[threadIdx.x] = most;
    for (int half = VOXEL_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half && part[threadIdx.x + half] > part[threadIdx.x])
            part[threadIdx.x] = part[threadIdx.x + half];
    }
    if (threadIdx.x == 0)
        atomicMax(largest, part[0]);
}

// out = grid / max(largest, norm_floor events), the network's input: normalise = 'max' of voxel.py.
extern "C" __global__ void voxel_normalise(const int *grid, int cells, const int *largest, double norm_floor, float *out)
{
    double unit = 1.0 / 65536, most = *largest * unit;
    float scale = (float)(unit / (most > norm_floor ? most : norm_floor));
    for (long long i = voxel_first(); i < cells; i += voxel_stride())
        out[i] = (float)grid[i] * scale;
}
