"""Pictures of what was found on video: the best and the worst sequences, a row of frames each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mos_perception.formats.image_files import write_rgb

HEIGHT = 160           # px of one picture
MOMENTS = (0.2, 0.5, 0.8)
ROWS = 5
RIGHT, FALSE, MISSED = (60, 220, 60), (255, 60, 60), (70, 110, 255)


class Pictures:
    """Gathers frames with what was found; green: right, red: false, blue: missed."""

    def __init__(self) -> None:
        self._rows: dict[str, list[np.ndarray]] = {}

    def add(self, video: Any, index: int, found: np.ndarray, score: float) -> None:
        """Frame `index` of a video with the union mask found (h, w) and its J."""
        moments = [round(part * (len(video.frames) - 1)) for part in MOMENTS]
        if index not in moments:
            return
        truth = (video.masks[index] > 0) & (video.masks[index] != 255)
        picture = overlay(video.frames[index].image, found, truth)
        cv2.putText(picture, f'{video.name} {score:.2f}', (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5,
                    (255, 255, 255), 1, cv2.LINE_AA)
        self._rows.setdefault(video.name, []).append(picture)

    def write(self, folder: Path, scores: dict[str, float]) -> None:
        """`best.jpg` and `worst.jpg`: the sequences of highest and lowest score."""
        folder.mkdir(parents=True, exist_ok=True)
        ranked = sorted(scores, key=scores.__getitem__)
        for name, chosen in (('worst', ranked[:ROWS]), ('best', ranked[::-1][:ROWS])):
            rows = [np.concatenate(self._rows[sequence], 1) for sequence in chosen]
            width = max(row.shape[1] for row in rows)
            rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
            write_rgb(folder / f'{name}.jpg', np.concatenate(rows, 0))


def overlay(image: np.ndarray, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(HEIGHT, w, 3) uint8: the frame in grey tones, the masks (h, w) bool over it in colour."""
    width = round(image.shape[1] * HEIGHT / image.shape[0])
    picture = cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
    picture = 0.5 * picture + 0.5 * picture.mean(2, keepdims=True)
    found, truth = (cv2.resize(mask.astype(np.uint8), (width, HEIGHT),
                               interpolation=cv2.INTER_NEAREST) > 0 for mask in (found, truth))
    for mask, colour in ((found & truth, RIGHT), (found & ~truth, FALSE), (truth & ~found, MISSED)):
        picture[mask] = 0.5 * picture[mask] + 0.5 * np.array(colour, np.float32)
    return np.ascontiguousarray(picture.astype(np.uint8))
