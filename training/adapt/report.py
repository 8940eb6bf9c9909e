"""The one page that says what was used, what was learned and what came of it; needs no other file.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mos_perception.reports.visualize import contact_sheet
from training.adapt.judge import Scores
from training.adapt.mine import MOVES, UNSURE
from training.adapt.survey import Survey

COLUMNS, WIDTH = 3, 300
LEARNED, LEFT_OUT = (60, 220, 60), (128, 128, 128)
_STYLE = ('body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}'
          'table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;'
          'text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}'
          '.bad{color:#b00}')


def labelled(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of an image (3, H, W): what counts as moving green, what teaches nothing
    grey; `labels` (h, w).
    """
    picture = image.transpose(1, 2, 0).astype(np.float32)
    large = cv2.resize(labels, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    for value, colour, share in ((MOVES, LEARNED, 0.5), (UNSURE, LEFT_OUT, 0.7)):
        inside = large == value
        picture[inside] = (1 - share) * picture[inside] + share * np.float32(colour)
    return picture.astype(np.uint8)


def page(title: str, verdict: str, surveys: list[Survey], before: Scores | None,
         after: Scores | None, pictures: dict[str, list[np.ndarray]], about: dict[str, Any]) -> str:
    """The HTML. `pictures` by caption; `before` and `after` on frames held out, if it got so far.
    """
    parts = [f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>'
             f'<style>{_STYLE}</style><h1>{html.escape(title)}</h1>',
             f'<p><b>{html.escape(verdict)}</b></p>', _surveys(surveys)]
    if before is not None and after is not None:
        parts.append(_scores(before, after))
    for caption, images in pictures.items():
        if images:
            sheet = contact_sheet(images, COLUMNS, (), WIDTH)
            parts.append(f'<h2>{html.escape(caption)}</h2>{_embedded(sheet)}')
    rows = ''.join(f'<tr><td>{html.escape(str(key))}</td><td>{html.escape(str(value))}</td></tr>'
                   for key, value in about.items())
    return '\n'.join([*parts, f'<h2>How it was made</h2><table>{rows}</table>\n'])


def write_page(path: Path, text: str) -> None:
    """Write it, whole or not at all. Raises OSError."""
    scratch = path.with_suffix('.part.html')
    scratch.write_text(text, encoding='utf-8')
    scratch.replace(path)


def _surveys(surveys: list[Survey]) -> str:
    head = ('recording', 'frames', 's', 'frames/s', 'well exposed', 'complete', 'steady',
            'usable s', 'with movers', 'pixels unsure')
    rows = ''
    for found in surveys:
        cells = (found.bag, found.frames, f'{found.seconds:.1f}', f'{found.rate_hz:.1f}',
                 *(f'{share:.0%}' for share in (found.exposed, found.complete, found.steady)),
                 f'{found.usable_s:.1f}', f'{found.moving:.0%}', f'{found.unsure:.0%}')
        rows += _row('td', cells)
    notes = ''.join(f'<p class="bad">{html.escape(found.bag)}: {html.escape(text)}</p>'
                    for found in surveys for text in found.complaints())
    return f'<h2>What the recordings can teach</h2><table>{_row("th", head)}{rows}</table>{notes}'


def _scores(before: Scores, after: Scores) -> str:
    words = {
        'agreement': 'agreement with the mined labels (IoU)',
        'consistency': 'consistency from frame to frame (IoU)',
        'false_alarms': 'false alarms per frame',
    }
    rows = ''.join(_row('td', (text, *(_number(getattr(one, name)) for one in (before, after))))
                   for name, text in words.items())
    return (f'<h2>On {before.frames} frames held out</h2><table>'
            f'{_row("th", ("", "before", "after"))}{rows}</table><p>Nobody labelled these '
            'recordings: the figures say how steady and how well founded in motion the answers '
            'are, not how right.</p>')


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def _row(tag: str, cells: tuple) -> str:
    inside = ''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)
    return f'<tr>{inside}</tr>'


def _embedded(image: np.ndarray) -> str:
    _, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}">'
