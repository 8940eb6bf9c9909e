"""How faithful rendered events are: against a 16 kHz reference, and how many there are.

`python -m bench.scenes --fidelity` runs this.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from bench.report import Report
from training.scenes import esim, render_clip
from training.scenes.presets import Preset, find_preset
from training.scenes.render import Renderer
from training.scenes.simulate import sample_times
from training.scenes.splits import generator
from training.scenes.world import World, build_world

SIZE = (260, 346)
QUIET = {'leak_hz': (0.0, 0.0), 'shot_hz': (0.0, 0.0), 'hot_share': (0.0, 0.0)}
REFERENCE_HZ, SPAN_S = 16_000, 0.2
STEPS_PX = (0.25, 0.35, 0.5, 0.7)
# of the bins: the worst counts, or samples on the bins' edges would flatter
OFFSETS_NS = (0, 670_000, 1_330_000)


def quiet_pixels(preset: Preset, seed: int) -> esim.Pixels:
    """A drawn sensor without noise."""
    return esim.Pixels.draw(
        generator(seed, 'train', 4), replace(preset.sensor, **QUIET), preset.size
    )


def signed_counts(
    packed: np.ndarray, size: tuple[int, int], bin_ns: int, offset_ns: int = 0
) -> np.ndarray:
    """(bins * H * W,) ON minus OFF events per pixel and bin of time; the first bin is `offset_ns`
    shorter.
    """
    cells = size[0] * size[1]
    when, y, x = (
        ((packed >> 29) + offset_ns) // bin_ns,
        (packed >> 15) & 0x3FFF,
        (packed >> 1) & 0x3FFF,
    )
    where = when * cells + y * size[1] + x
    length = (int(SPAN_S * 1e9) // bin_ns + 2) * cells
    return np.bincount(where, 2.0 * (packed & 1) - 1, length)


def cosine(a: np.ndarray, b: np.ndarray, bin_ns: int) -> float:
    """Of the angle between two event streams' signed counts, at the worst of the bins' offsets."""
    pairs = (
        (signed_counts(a, SIZE, bin_ns, offset), signed_counts(b, SIZE, bin_ns, offset))
        for offset in OFFSETS_NS
    )
    return min(float(x @ y / np.sqrt((x @ x) * (y @ y))) for x, y in pairs)


def world_events(
    world: World, preset: Preset, pixels: esim.Pixels, times: np.ndarray, chunk: int = 256
) -> np.ndarray:
    """(E,) packed events of a world sampled at `times` from 0, noise off; in chunks, so that 16 kHz
    fits in memory.
    """
    renderer, crosser, parts = Renderer(world, preset.size), None, []
    stamps = np.round(times * 1e9).astype(np.int64)
    for first in range(0, len(times), chunk):
        logs = (
            renderer.images(times[first : first + chunk], rgb=False)[:, 0]
            .add(esim.LOG_EPS)
            .log_()
            .numpy()
        )
        if crosser is None:
            crosser = esim.Crosser(pixels, logs[0], stamps[0])
            logs = logs[1:]
        parts.append(crosser.feed(logs, stamps[max(first, 1):first + chunk]))
    return np.concatenate(parts)


def bench_fidelity(report: Report, args: argparse.Namespace) -> None:
    """Cosines at several steps against 16 kHz, the worst scene; the bar is judged at the preset's
    own step.
    """
    preset = find_preset('mid', size=SIZE)
    steps = sorted({*STEPS_PX, preset.step_px})
    found: dict[float, list[tuple[float, float, float, float]]] = {step: [] for step in steps}
    for seed in range(args.scenes):
        world, pixels = build_world(preset, seed, 'train'), quiet_pixels(preset, seed)
        reference = world_events(
            world, preset, pixels, np.linspace(0, SPAN_S, int(SPAN_S * REFERENCE_HZ) + 1)
        )
        for step in steps:
            times = sample_times(world, replace(preset, step_px=step), 0.0, SPAN_S)
            packed = world_events(world, preset, pixels, times)
            found[step].append(
                (
                    cosine(packed, reference, 10_000_000),
                    cosine(packed, reference, 2_000_000),
                    len(packed) / len(reference),
                    len(times) / SPAN_S,
                )
            )
    for step, figures in found.items():
        ten, two, kept, rate = np.array(figures).T
        chosen = ' (the preset\'s)' if step == preset.step_px else ''
        for name, values, bar in (('10 ms', ten, 0.99), ('2 ms', two, 0.97)):
            report.row(
                f'{step} px per sample{chosen}: cosine in {name} bins, worst of '
                f'{args.scenes} scenes',
                float(values.min()),
                '',
                {
                    'median': float(np.median(values)),
                    'events kept': float(kept.mean()),
                    'samples/s': float(rate.mean()),
                },
                f'>= {bar}',
                bool(values.min() >= bar),
                each=values.tolist(),
            )
    good = [step for step, figures in found.items() if min(f[0] for f in figures) >= 0.99 and
            min(f[1] for f in figures) >= 0.97]
    report.note(f'largest step that meets both bars in every scene: {max(good, default=None)} px '
                'per sample')


def bench_rates(report: Report, args: argparse.Namespace) -> None:
    """Events per pixel per second of default clips, noise included; the bar is on the median clip.
    """
    for name, changes, low, high in (
        ('mid', {}, 3, 15),
        ('mid, static camera', {'static_camera': 1.0}, 0, 1),
    ):
        preset = find_preset('mid', **changes)
        rates = []
        for seed in range(args.rate_clips):
            events = render_clip(preset, seed).events
            span_s = preset.frame_slots / preset.fps + 0.005
            rates.append(len(events) / span_s / (preset.size[0] * preset.size[1]))
        middle, inside = (
            float(np.median(rates)),
            float(np.mean([low <= rate <= high for rate in rates])),
        )
        report.row(
            f'{name}: events per pixel per second, median of {args.rate_clips} clips',
            middle,
            '1/s',
            {
                '10 %': float(np.quantile(rates, 0.1)),
                '90 %': float(np.quantile(rates, 0.9)),
                'share of clips inside': inside,
            },
            f'{low}-{high}' if low else f'< {high}',
            low <= middle <= high,
        )
