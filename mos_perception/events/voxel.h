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
