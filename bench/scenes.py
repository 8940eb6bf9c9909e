"""Rendering scenes beside an OpenCV + Numba loop and evlib's ESIM on the same scenes, in one run.

    python -m bench.scenes [--json PATH] [--scenes 6] [--clips 1000]  speed and memory
    python -m bench.scenes --fidelity [--json PATH] [--scenes 6]  fidelity and rates of events

Speed bars (346x260, 2 cores): frames + events + truth of a scene-second in 0.6 s, 2 x the OpenCV +
Numba loop. Event bars: cosine of signed counts per pixel >= 0.99 in 10 ms bins, >= 0.97 in 2 ms;
3-15 events per pixel per second in `mid` clips, under 1 with a static camera. evlib comes from
requirements/bench.txt; where it is missing, that is said.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench import scenes_opencv
from bench.report import Report, parsed
from bench.scenes_fidelity import SIZE, SPAN_S, bench_fidelity, bench_rates, quiet_pixels
from training.scenes import esim, render_clip
from training.scenes.presets import Preset, find_preset
from training.scenes.render import Renderer, speeds_px_s
from training.scenes.simulate import sample_times
from training.scenes.world import build_world


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """(wall, processor) seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def opencv_run(preset: Preset, seed: int) -> Callable[[], object]:
    """The OpenCV + Numba loop for the clip that `render_clip(preset, seed)` renders."""
    def run() -> object:
        world = build_world(preset, seed, 'train')
        offsets = np.arange(preset.frame_count) / preset.fps
        counts = np.clip(
            np.ceil(speeds_px_s(world, preset.size, offsets) * world.exposure_s), 1, 16
        ).astype(int)
        times = sample_times(world, preset, -1 / preset.fps, offsets[-1] + 0.005)
        return scenes_opencv.render(
            world, preset.size, times, quiet_pixels(preset, seed), offsets, counts
        )

    return run


def full_run(preset: Preset, seed: int) -> Callable[[], object] | None:
    """Frames, events, ids and every other truth at the frames; None while the package has no
    `render_truth`.
    """
    render_truth = getattr(importlib.import_module('training.scenes'), 'render_truth', None)
    if render_truth is None:
        return None

    def run() -> object:
        clip = render_clip(preset, seed)
        return clip, render_truth(preset, seed, 'train', clip.stamps_ns)

    return run


def bench_scene_second(report: Report, args: argparse.Namespace) -> None:
    """One scene-second of `mid` per seed, the contestants taking turns; medians over the scenes."""
    preset = find_preset('mid', size=SIZE, duration_s=1.0)
    torch.set_num_threads(args.threads)
    walls: dict[str, list[float]] = {}
    cpus: dict[str, list[float]] = {}
    for turn in range(-1, args.scenes):
        # the first turn compiles
        seed, level = max(turn, 0), preset if turn >= 0 else replace(preset, duration_s=0.1)
        runs = {
            'ours': partial(render_clip, level, seed),
            'OpenCV + Numba': opencv_run(level, seed),
            'with truth': full_run(level, seed),
        }
        for name, run in runs.items():
            wall, cpu = timed(run) if run else (0.0, 0.0)
            if run and turn >= 0:
                walls.setdefault(name, []).append(wall)
                cpus.setdefault(name, []).append(cpu)
    middle = {name: float(np.median(values)) for name, values in walls.items()}
    work = {name: float(np.median(values)) for name, values in cpus.items()}
    for what, figures in (('wall', middle), ('processor time', work)):
        ratio = figures['OpenCV + Numba'] / figures['ours']
        report.row(
            f'scene-second mid 346x260, frames + events + ids, {what}',
            figures['ours'],
            's',
            {'OpenCV + Numba': figures['OpenCV + Numba']},
            '<= 0.6 s, >= 2 x' if what == 'wall' else '>= 2 x',
            ratio >= 2 and (what != 'wall' or figures['ours'] <= 0.6),
            ratio=ratio,
            scenes=args.scenes,
        )
        if 'with truth' in figures:
            report.row(
                f'the same + boxes, depth, poses, points, flow, {what}',
                figures['with truth'],
                's',
                {},
                '<= 0.6 s' if what == 'wall' else '<= 1.2 s (2 idle cores)',
                figures['with truth'] <= (0.6 if what == 'wall' else 1.2),
            )
    if 'with truth' not in middle:
        report.note('full truth not measured: training.scenes has no render_truth')
    report.note(f'ratios to OpenCV + Numba: wall {middle["OpenCV + Numba"] / middle["ours"]:.2f}, '
                f'processor {work["OpenCV + Numba"] / work["ours"]:.2f}; per scene, wall s: '
                f'{np.round(walls["ours"], 2).tolist()} against '
                f'{np.round(walls["OpenCV + Numba"], 2).tolist()}')


def bench_event_step(report: Report, args: argparse.Namespace) -> None:
    """Events alone from the same rendered images, one thread: ours, the plain Numba loop, evlib."""
    preset = find_preset('mid', size=SIZE)
    world, pixels = build_world(preset, 0, 'train'), quiet_pixels(preset, 0)
    times = sample_times(world, preset, 0.0, SPAN_S)
    stamps = np.round(times * 1e9).astype(np.int64)
    light = Renderer(world, SIZE).images(times, rgb=False)[:, 0].contiguous().numpy()
    slow = replace(pixels, cutoff_hz=100.0)
    runs: dict[str, Callable[[], object]] = {
        'ours': lambda: esim.crossings(np.log(light + np.float32(esim.LOG_EPS)), stamps, pixels),
        'with low-pass': lambda: esim.crossings(
            np.log(light + np.float32(esim.LOG_EPS)), stamps, slow
        ),
        'plain Numba loop': lambda: plain_loop(light, stamps, pixels),
    }
    peer = evlib_run(report, light, times, float(pixels.on.mean()))
    if peer:
        runs['evlib'] = peer
    best = {
        name: min(timed(run)[1] for _ in range(4)) / len(times) * 1e3 for name, run in runs.items()
    }
    report.row(
        'log + events of one image 346x260, processor time',
        best.pop('ours'),
        'ms',
        best,
        '',
        None,
        samples=len(times),
    )


def plain_loop(light: np.ndarray, stamps: np.ndarray, pixels: esim.Pixels) -> np.ndarray:
    """(E,) packed events by the peer's own crossing loop."""
    logs, state = np.log(light + np.float32(esim.LOG_EPS)), pixels.state.copy()
    out, count = np.empty(4096, np.int64), 0
    for k in range(1, len(logs)):
        out, count = scenes_opencv.cross(
            logs[k],
            logs[k - 1],
            state,
            pixels.on,
            pixels.off,
            stamps[k - 1],
            stamps[k] - stamps[k - 1],
            0,
            out,
            count,
        )
    return out[:count]


def evlib_run(
    report: Report, light: np.ndarray, times: np.ndarray, threshold: float
) -> Callable[[], object] | None:
    """evlib's ESIMSimulator over the same images (0-255 as it wants), or None and a note."""
    try:
        simulation = importlib.import_module('evlib.simulation')
        config = simulation.ESIMConfig(
            positive_threshold=threshold,
            negative_threshold=threshold,
            device='cpu',
            refractory_period_ms=0.0,
            log_floor=esim.LOG_EPS,
            dtype='float32',
        )
    except (ImportError, AttributeError) as error:
        report.note(f'evlib not measured: {error} (requirements/bench.txt)')
        return None
    images = [np.ascontiguousarray(image) for image in light * 255]

    def run() -> int:
        simulator = simulation.ESIMSimulator(config)
        return sum(
            len(simulator.process_frame(image, t)[0])
            for image, t in zip(images, times, strict=True)
        )

    logs, stamps = np.log(light + np.float32(esim.LOG_EPS)), np.round(times * 1e9).astype(np.int64)
    ours = len(esim.crossings(logs, stamps, esim.Pixels.ideal(SIZE, threshold)))
    report.note(f'evlib finds {run()} events, ours {ours} at equal thresholds; evlib gives all '
                'events of an image its '
                'stamp, ours each its own')
    return run


def resident_mb() -> float:
    """Memory of this process."""
    fields = Path('/proc/self/statm').read_text().split()
    return int(fields[1]) * 4096 / 1e6


def bench_memory(report: Report, args: argparse.Namespace) -> None:
    """Resident memory before and after many clips of changing scenes."""
    if not args.clips:
        return
    preset = find_preset('mid', duration_s=0.1)
    for seed in range(20):
        render_clip(preset, seed)
    before, start = resident_mb(), time.perf_counter()
    for seed in range(args.clips):
        render_clip(preset, 100 + seed)
    growth = resident_mb() - before
    report.row(
        f'memory growth over {args.clips} clips, after 20',
        growth,
        'MB',
        {'before, MB': before},
        '< 30 MB',
        growth < 30,
        seconds=time.perf_counter() - start,
    )


def bench_gpu(report: Report) -> None:
    """Scene-seconds per second on a CUDA device at 256x192."""
    if not torch.cuda.is_available():
        report.note('GPU, 256x192, >= 100 scene-seconds per second: not measured: no GPU here')
        return
    preset = find_preset('mid', size=(192, 256), duration_s=1.0)
    render_clip(preset, 0, device='cuda')
    seconds = [timed(lambda s=seed: render_clip(preset, s, device='cuda'))[0] for seed in range(5)]
    rate = 1 / float(np.median(seconds))
    report.row('GPU, mid 256x192', rate, 'scene-s/s', {}, '>= 100', rate >= 100)


def main(arguments: list[str] | None = None) -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--json', help='write the figures here')
    parser.add_argument('--fidelity', action='store_true', help='events against 16 kHz and event '
                                                                'rates, no speed')
    parser.add_argument('--scenes', type=int, default=6)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--clips', type=int, default=1000, help='clips of the memory test, 0 = '
                                                                'none')
    parser.add_argument('--rate-clips', type=int, default=20)
    args = parsed(parser, arguments)
    title = 'event fidelity and rates' if args.fidelity else 'speed and memory'
    report = Report('scenes', f'Scenes: {title}',
                    ('numpy', 'numba', 'torch', 'opencv-python-headless', 'evlib'))
    steps = (
        (bench_fidelity, bench_rates)
        if args.fidelity
        else (bench_scene_second, bench_event_step, bench_memory)
    )
    for step in steps:
        step(report, args)
    if not args.fidelity:
        bench_gpu(report)
    report.finish(args)


if __name__ == '__main__':
    main()
