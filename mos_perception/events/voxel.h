// Per-event arithmetic of the voxel grid: what `scatter.py` does to one event, for a kernel. Sums
// are int32 Q16, so atomic additions in any order give the CPU's grid bit by bit.
#pragma once

struct VoxelWindow {
    long long t0, span, m;        // ns; m and shift: scatter.time_scale
    const int *columns, *rows;    // cell of pixel (x, y) = rows[y] + columns[x]
    int low, shift;               // first dt that counts: 1, or 0 for a closed window
    int width, height;            // of the sensor
    int area, bins;               // cells of a plane; planes of one polarity
    int mask;                     // 0xFFFF splits an event between two planes, 0 does not
    int dark_offset, dark_sign;   // cells from brighter to darker planes; -1 or +1
};

struct VoxelEvent {
    int x, y, p;
    long long t;  // ns
};

// Adds and reports a cell that nears int32's end (bit 30), as the CPU path does before it widens.
static inline __device__ void voxel_add(int *grid, long long cell, int value, int *overflow)
{
    int sum = atomicAdd(&grid[cell], value) + value;
    if ((sum ^ (sum >> 31)) >= 1 << 30)
        atomicMax(overflow, 1);
}

static inline __device__ void voxel_event(int *grid, int *overflow, const VoxelWindow &w,
                                          const VoxelEvent &e)
{
    long long dt = e.t - w.t0;
    if (dt < w.low || dt > w.span || e.x >= w.width || e.y >= w.height)
        return;
    long long q = (dt * w.m) >> w.shift;
    int dark = e.p <= 0;
    int sign = dark ? w.dark_sign : 1;
    long long plane = q >> 16;
    if (plane > w.bins - 1)
        plane = w.bins - 1;
    long long pixel = w.rows[e.y] + w.columns[e.x] + (long long)dark * w.dark_offset;
    long long cell = plane * w.area + pixel;
    int share = (int)(q & w.mask);
    voxel_add(grid, cell, (65536 - share) * sign, overflow);
    if (share)
        voxel_add(grid, cell + w.area, share * sign, overflow);
}

// Where the static scene goes, see `moved.py`: the displacement of pixel (16 column, 16 row) is
// nodes[row * columns + column], 1/32 px right in its high half and down in its low one.
struct VoxelMotion {
    long long t, m;    // age = ((t - t of the event) * m) >> shift, in 2^-14 of the motion's span
    const int *nodes;
    int columns, shift;
};

// Bilinear between four nodes at `right`, `down` of 16, rounded.
static inline __device__ int voxel_between(int a, int b, int c, int d, int right, int down)
{
    int left = a * (16 - down) + c * down;
    return (left * 16 + 128 + (b * (16 - down) + d * down - left) * right) >> 8;
}

// The two cells that a place between two pixels of an axis votes for, their weights of 256.
struct VoxelAxis {
    int cell[2], weight[2];
};

// `place` in 1/256 px; cells of an axis of `count` pixels. Nothing goes to a pixel outside; two
// pixels of one cell give it the whole.
static inline __device__ VoxelAxis voxel_axis(int place, const int *cells, int count)
{
    int pixel = place >> 8, part = place & 255;
    bool before = pixel >= 0, after = pixel + 1 < count;
    VoxelAxis axis = {{cells[before ? pixel : 0], cells[after ? pixel + 1 : pixel]},
                      {before ? 256 - part : 0, after ? part : 0}};
    if (before && after && axis.cell[0] == axis.cell[1])
        axis.weight[0] = 256, axis.weight[1] = 0;
    return axis;
}

static inline __device__ void voxel_moved_event(int *grid, int *overflow, const VoxelWindow &w,
                                                const VoxelMotion &k, const VoxelEvent &e)
{
    long long dt = e.t - w.t0;
    if (dt < w.low || dt > w.span || e.x >= w.width || e.y >= w.height)
        return;
    const int *node = k.nodes + (e.y >> 4) * k.columns + (e.x >> 4);
    int a = node[0], b = node[1], c = node[k.columns], d = node[k.columns + 1];
    int right = voxel_between(a >> 16, b >> 16, c >> 16, d >> 16, e.x & 15, e.y & 15);
    int down = voxel_between((short)a, (short)b, (short)c, (short)d, e.x & 15, e.y & 15);
    int age = (int)(((k.t - e.t) * k.m) >> k.shift);
    int x = e.x * 256 + ((age * right + 1024) >> 11), y = e.y * 256 + ((age * down + 1024) >> 11);
    if (x < -256 || x >= w.width * 256 || y < -256 || y >= w.height * 256)
        return;
    VoxelAxis across = voxel_axis(x, w.columns, w.width), along = voxel_axis(y, w.rows, w.height);
    long long q = (dt * w.m) >> w.shift, plane = q >> 16 > w.bins - 1 ? w.bins - 1 : q >> 16;
    unsigned int share = (unsigned int)(q & w.mask);
    int dark = e.p <= 0, sign = dark ? w.dark_sign : 1;
    long long first = plane * w.area + (long long)dark * w.dark_offset;
    for (int i = 0; i < 4; ++i) {
        int weight = across.weight[i & 1] * along.weight[i >> 1];
        int after = (int)((unsigned int)weight * share >> 16);
        long long cell = first + along.cell[i >> 1] + across.cell[i & 1];
        if (weight)
            voxel_add(grid, cell, (weight - after) * sign, overflow);
        if (after)
            voxel_add(grid, cell + w.area, after * sign, overflow);
    }
}
