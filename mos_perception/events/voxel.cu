// Event voxelisation on a GPU. Counts and windows live in device memory, so that one CUDA graph
// serves windows of any size; all loops stride over the grid. Every kernel gives what `voxel.py`
// gives, bit by bit.
#include "voxel.h"

#define VOXEL_THREADS 256  // threads of a block of voxel_largest

static inline __device__ long long voxel_first()
{
    return blockIdx.x * (long long)blockDim.x + threadIdx.x;
}
static inline __device__ long long voxel_stride()
{
    return (long long)gridDim.x * blockDim.x;
}

// The bits of a 16-bit float nearest to a float of magnitude 1 at most.
static inline __device__ unsigned short voxel_half(float value)
{
    union { float real; unsigned int bits; } v = {value};
    unsigned int sign = v.bits >> 16 & 0x8000, magnitude = v.bits & 0x7FFFFFFF, kept, lost, tie;
    if (magnitude < 0x38800000) {  // below 2^-14: 16-bit floats are spaced 2^-24 there
        if (magnitude < 0x33000000)
            return (unsigned short)sign;
        unsigned int shift = 126 - (magnitude >> 23), whole = (magnitude & 0x7FFFFF) | 0x800000;
        kept = whole >> shift, lost = whole & ((1u << shift) - 1), tie = 1u << (shift - 1);
    } else {
        unsigned int rebased = magnitude - 0x38000000;
        kept = rebased >> 13, lost = rebased & 0x1FFF, tie = 0x1000;
    }
    return (unsigned short)(sign | (kept + (lost > tie || (lost == tie && (kept & 1)))));
}

// grid += the events x, y, p, t [*count] of the window.
extern "C" __global__ void voxel_events(int *grid, int *overflow, const unsigned short *x,
                                        const unsigned short *y, const unsigned char *p,
                                        const long long *t, const int *count,
                                        const VoxelWindow *window)
{
    const VoxelWindow w = *window;
    for (long long i = voxel_first(); i < *count; i += voxel_stride())
        voxel_event(grid, overflow, w, VoxelEvent{x[i], y[i], p[i], t[i]});
}

// The same for events that are moved along `motion` first.
extern "C" __global__ void voxel_moved_events(int *grid, int *overflow, const unsigned short *x,
                                              const unsigned short *y, const unsigned char *p,
                                              const long long *t, const int *count,
                                              const VoxelWindow *window, const VoxelMotion *motion)
{
    const VoxelWindow w = *window;
    const VoxelMotion k = *motion;
    for (long long i = voxel_first(); i < *count; i += voxel_stride())
        voxel_moved_event(grid, overflow, w, k, VoxelEvent{x[i], y[i], p[i], t[i]});
}

static inline __device__ VoxelEvent voxel_mono_event(unsigned long long word, long long time_base)
{
    return VoxelEvent{(int)(word >> 32 & 0xFFFF), (int)(word >> 48 & 0x7FFF), (int)(word >> 63),
                      time_base + (long long)(word & 0xFFFFFFFFu)};
}

// `voxel_events` from the words of one raw `mono` packet: dt 0..31 ns, x 32..47, y 48..62,
// polarity 63.
extern "C" __global__ void voxel_mono(int *grid, int *overflow, const unsigned long long *words,
                                      const int *count, long long time_base,
                                      const VoxelWindow *window)
{
    const VoxelWindow w = *window;
    for (long long i = voxel_first(); i < *count; i += voxel_stride())
        voxel_event(grid, overflow, w, voxel_mono_event(words[i], time_base));
}

// `voxel_moved_events` from the words of one raw `mono` packet.
extern "C" __global__ void voxel_moved_mono(int *grid, int *overflow,
                                            const unsigned long long *words, const int *count,
                                            long long time_base, const VoxelWindow *window,
                                            const VoxelMotion *motion)
{
    const VoxelWindow w = *window;
    const VoxelMotion k = *motion;
    for (long long i = voxel_first(); i < *count; i += voxel_stride())
        voxel_moved_event(grid, overflow, w, k, voxel_mono_event(words[i], time_base));
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
// `half`: out holds 16-bit floats, rounded to nearest even.
extern "C" __global__ void voxel_normalise(const int *grid, int cells, const int *largest,
                                           double norm_floor, void *out, int half)
{
    double unit = 1.0 / 65536, most = *largest * unit;
    float scale = (float)(unit / (most > norm_floor ? most : norm_floor));
    for (long long i = voxel_first(); i < cells; i += voxel_stride())
        if (half)
            ((unsigned short *)out)[i] = voxel_half((float)grid[i] * scale);
        else
            ((float *)out)[i] = (float)grid[i] * scale;
}

// out (2, area) = count and mean time of a `dimos` grid (2 bins, area), see `features.py`; `floor`
// is its norm_floor in Q16. `half`: as for voxel_normalise.
extern "C" __global__ void voxel_features(const int *grid, int area, int bins, float floor,
                                          void *out, int half)
{
    for (long long i = voxel_first(); i < area; i += voxel_stride()) {
        long long events = 0, moment = 0;
        for (int plane = 0; plane < bins; ++plane) {
            const int *cell = grid + (long long)plane * area + i;
            long long both = (long long)cell[0] + cell[(long long)bins * area];
            events += both, moment += both * (2 * plane - (bins - 1));
        }
        float count = __ll2float_rn(events), mean = 0;
        if (events >= 2 * 65536)
            mean = __fdiv_rn(__ll2float_rn(moment), __ll2float_rn(events * (bins - 1)));
        count = __fdiv_rn(count, __fadd_rn(count, floor));
        if (half) {
            ((unsigned short *)out)[i] = voxel_half(count);
            ((unsigned short *)out)[area + i] = voxel_half(mean);
        } else {
            ((float *)out)[i] = count;
            ((float *)out)[area + i] = mean;
        }
    }
}
