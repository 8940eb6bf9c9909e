// Runs every kernel on buffers of exactly the size it may use, for a sanitizer to watch.
#include "cuda_shim.h"

#include "voxel.cu"

#include "evt3.cu"

#include "frame.cu"

static void evt3(std::mt19937 &rng)
{
    const int count = 1000;
    std::vector<unsigned short> words(count), *x, *y;
    for (auto &word : words)
        word = (unsigned short)(rng() % 16 << 12 | rng() % 4096);
    std::vector<Evt3State> *runs = new std::vector<Evt3State>((count + EVT3_RUN - 1) / EVT3_RUN);
    Evt3State state = {15};
    int events = 0;
    launch(3, 4, 0, [&] { evt3_scan(words.data(), &count, runs->data()); });
#ifndef SHIM_THREADS  // there a block is one thread, and the join is one block
    launch(1, EVT3_THREADS, 0, [&] { evt3_join(&count, runs->data(), &state, &events); });
    x = new std::vector<unsigned short>(events), y = new std::vector<unsigned short>(events);
    std::vector<unsigned char> p(events);
    std::vector<long long> t(events);
    launch(3, 4, 0, [&] {
        evt3_scatter(words.data(), &count, runs->data(), x->data(), y->data(), p.data(), t.data());
    });
    delete x;
    delete y;
#endif
    delete runs;
}

static void frame(std::mt19937 &rng)
{
    const int height = 9, width = 14, queries = 3, half[] = {5, 7};
    std::vector<unsigned char> pixels(height * width * 3);
    std::vector<float> image(3 * half[0] * half[1]), logits(queries * half[0] * half[1]);
    for (auto &value : pixels)
        value = (unsigned char)rng();
    for (auto &value : logits)
        value = (float)(int)(rng() % 9) - 4;
    std::vector<int> first[2], begin[2], low[2];
    std::vector<float> weight[2], part[2];
    for (int axis = 0; axis < 2; ++axis) {
        int sources = axis ? width : height, size = half[axis];
        for (int i = 0; i < size; ++i) {
            first[axis].push_back(i * sources / size);
            begin[axis].push_back(i);
            weight[axis].push_back(1);
        }
        begin[axis].push_back(size);
        for (int i = 0; i < sources; ++i) {
            low[axis].push_back(i * size / sources);
            part[axis].push_back(0.5f);
        }
    }
    AreaAxis area[2] = {{first[0].data(), begin[0].data(), weight[0].data(), half[0], 0},
                        {first[1].data(), begin[1].data(), weight[1].data(), half[1], 0}};
    LinearAxis linear[2] = {{low[0].data(), part[0].data(), height, half[0]},
                            {low[1].data(), part[1].data(), width, half[1]}};
    int order[] = {0, 1, 2}, present = 1, bad = 0, chosen[] = {2, 0}, kept = 2;
    float ones[] = {1, 1, 1};
    launch(4, 32, 0, [&] {
        frame_image(image.data(), pixels.data(), 3 * width, 3, order, &present, &area[0], &area[1],
                    ones, ones);
    });
    std::vector<unsigned long long> sums(queries);
    std::vector<int> counts(queries);
    launch(2 * queries, 32, 0, [&] {
        frame_quality(logits.data(), 2, &linear[0], &linear[1], sums.data(), counts.data(), &bad);
    });
    std::vector<unsigned short> labels(height * width);
    std::vector<Claim> claims(queries);
    for (int step = 0; step <= queries; ++step)
        launch(4, 32, 0, [&] {
            frame_claim(logits.data(), chosen, &kept, step, 0.5, &linear[0], &linear[1],
                        labels.data(), claims.data());
        });
}

int main()
{
    const int width = 20, height = 12, bins = 5, area = width * height, count = 3000;
    const int cells = 2 * bins * area;
    std::vector<int> columns(width), rows(height), *grid = new std::vector<int>(cells);
    std::iota(columns.begin(), columns.end(), 0);
    for (int y = 0; y < height; ++y)
        rows[y] = y * width;
    std::mt19937 rng(7);
    std::vector<unsigned short> x(count), y(count);
    std::vector<unsigned char> p(count);
    std::vector<long long> t(count);
    for (int i = 0; i < count; ++i) {  // some outside of sensor and window; some at its end
        x[i] = rng() % (width + 2), y[i] = rng() % (height + 2), p[i] = rng() % 2;
        t[i] = i % 50 ? rng() % 1100 : 1000;
    }
    // m, shift: scatter.time_scale(4, 1000)
    VoxelWindow window{0, 1000, ((4LL << 58) + 999) / 1000, columns.data(), rows.data(), 1, 42,
                       width, height, area, bins, 0xFFFF, bins * area, 1};
    int overflow = 0, largest = 0;
    launch(4, 32, 0, [&] {
        voxel_events(grid->data(), &overflow, x.data(), y.data(), p.data(), t.data(), &count,
                     &window);
    });
    std::vector<int> nodes(6);  // displacements of up to 20 px
    for (auto &node : nodes)
        node = (int)(rng() % 1280 - 640) << 16 | (rng() % 1280 - 640) & 0xFFFF;
    VoxelMotion motion{1000, ((1LL << 60) + 999) / 1000, nodes.data(), 3, 46};
    launch(4, 32, 0, [&] {
        voxel_moved_events(grid->data(), &overflow, x.data(), y.data(), p.data(), t.data(), &count,
                           &window, &motion);
    });
    launch(2, VOXEL_THREADS, 0, [&] { voxel_largest(grid->data(), cells, &largest); });
    std::vector<float> features(2 * area);
    launch(4, 32, 0, [&] { voxel_features(grid->data(), area, bins, 65536, features.data(), 0); });
    delete grid;
    evt3(rng);
    frame(rng);
    return 0;
}
