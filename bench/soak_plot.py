"""The picture of a soak: memory, latency and state over time, as an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, LEFT, PANEL, GAP, TOP = 960, 60, 120, 40, 30
STATES = ('OK', 'DEGRADED', 'STALE', 'FAULT')


def plot(samples: Sequence[tuple[float, float, float, str]],
         faults: Sequence[tuple[float, str]]) -> str:
    """`samples` (s, resident MB, latency ms, state), `faults` (s, name), on one clock -> SVG."""
    if not samples:
        return '<svg xmlns="http://www.w3.org/2000/svg"/>\n'
    t = np.array([row[0] for row in samples])
    start, span = t[0], max(t[-1] - t[0], 1.0)
    x = LEFT + (t - start) / span * (WIDTH - LEFT - 10)
    states = np.array([STATES.index(row[3]) for row in samples], float)
    panels = [('resident memory, MB', np.array([row[1] for row in samples]), None),
              ('latency, ms', np.array([row[2] for row in samples]), None),
              ('state', states, STATES)]
    height = TOP + len(panels) * (PANEL + GAP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
             'font-family="sans-serif" font-size="11">',
             f'<rect width="{WIDTH}" height="{height}" fill="white"/>']
    for when, name in faults:
        at = LEFT + (when - start) / span * (WIDTH - LEFT - 10)
        parts.append(f'<path d="M{at:.1f} {TOP}V{height - GAP}" stroke="#eee">'
                     f'<title>{escape(name)}</title></path>')
    for row, (title, values, names) in enumerate(panels):
        parts += _panel(TOP + row * (PANEL + GAP), title, x, values, names)
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<text x="{LEFT + share * (WIDTH - LEFT - 30):.0f}" y="{height - 15}">'
                     f'{share * span / 60:.1f} min</text>')
    return '\n'.join([*parts, '</svg>']) + '\n'


def _panel(top: int, title: str, x: np.ndarray, values: np.ndarray,
           names: tuple[str, ...] | None) -> list[str]:
    """A frame, its title, the limits and the curve."""
    high = len(names) - 1 if names else float(values.max()) * 1.05 or 1.0
    y = top + PANEL - values / high * PANEL
    ticks = list(enumerate(names)) if names else [(0, '0'), (high, f'{high:.0f}')]
    points = ' '.join(f'{at:.1f},{value:.1f}' for at, value in zip(x, y))
    return [f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{title}</text>',
            f'<path d="M{LEFT} {top}v{PANEL}H{WIDTH - 10}" fill="none" stroke="#888"/>',
            *(f'<text x="{LEFT - 4}" y="{top + PANEL - value / high * PANEL + 4:.0f}" '
              f'text-anchor="end">{name[:8]}</text>' for value, name in ticks),
            f'<polyline points="{points}" fill="none" stroke="#06c"/>']
