// The voxel kernels as C functions (a shared library), or with SHIM_MAIN a program that runs them for a sanitizer.
#include "cuda_shim.h"

#include "voxel.cu"

extern "C" void shim_events(int blocks, int threads, int schedule, int *grid, int *overflow, const unsigned short *x,
                            const unsigned short *y, const unsigned char *p, const long long *t, const int *count,
                            const VoxelWindow *window)
{
    launch(blocks, threads, schedule, [=] { voxel_events(grid, overflow, x, y, p, t, count, *window); });
}

extern "C" void shim_mono(int blocks, int threads, int schedule, int *grid, int *overflow, const unsigned long long *words,
                          const int *count, long long time_base, const VoxelWindow *window)
{
    launch(blocks, threads, schedule, [=] { voxel_mono(grid, overflow, words, count, time_base, *window); });
}

extern "C" void shim_largest(int blocks, int schedule, const int *grid, int cells, int *largest)
{
    launch(blocks, VOXEL_THREADS, schedule, [=] { voxel_largest(grid, cells, largest); });
}

extern "C" void shim_normalise(int blocks, int threads, int schedule, const int *grid, int cells, const int *largest,
                               double norm_floor, float *out)
{
    launch(blocks, threads, schedule, [=] { voxel_normalise(grid, cells, largest, norm_floor, out); });
}

#ifdef SHIM_MAIN
int main()
{
    const int width = 20, height = 12, bins = 5, area = width * height, count = 3000, cells = 2 * bins * area;
    std::vector<int> columns(width), rows(height), *grid = new std::vector<int>(cells);
    std::iota(columns.begin(), columns.end(), 0);
    for (int y = 0; y < height; ++y)
        rows[y] = y * width;
    std::mt19937 rng(7);
    std::vector<unsigned short> x(count), y(count);
    std::vector<unsigned char> p(count);
    std::vector<long long> t(count);
    for (int i = 0; i < count; ++i)  // some outside of the sensor and of the window; some at its end
        x[i] = rng() % (width + 2), y[i] = rng() % (height + 2), p[i] = rng() % 2, t[i] = i % 50 ? rng() % 1100 : 1000;
    // m, shift: scatter.time_scale(4, 1000)
    VoxelWindow window{0, 1000, ((4LL << 58) + 999) / 1000, columns.data(), rows.data(), 1, 42, width, height, area, bins,
                       0xFFFF, bins * area, 1};
    int overflow = 0, largest = 0;
    launch(4, 32, 0, [&] { voxel_events(grid->data(), &overflow, x.data(), y.data(), p.data(), t.data(), &count, window); });
    launch(2, VOXEL_THREADS, 0, [&] { voxel_largest(grid->data(), cells, &largest); });
    delete grid;
    return 0;
}
#endif
