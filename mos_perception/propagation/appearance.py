"""SAM 2.1's image encoder on a camera's frames: what GMOS looks at and its propagator, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mos_perception.engine import load_engine
from mos_perception.engine.card import check, load_card
from mos_perception.errors import EngineError
from mos_perception.models.preprocess import image_tensor

LEVELS = ('appearance', 'middle', 'fine')


class AppearanceEncoder:
    """The graph `appearance`; the levels of the last frame are kept, so that it is encoded once."""

    def __init__(self, path: Path, backend: str, threads: int, cuda_driver: str) -> None:
        """`path` of the graph, the others as for `load_engine`. Raises EngineError."""
        self.path, self.card = path, load_card(path)
        self.engine = load_engine(path, backend, threads, cuda_driver)
        check(self.card, self.engine)
        inputs = {spec.name: spec.shape for spec in self.card.inputs}
        shape = inputs.get('image', ())
        names = {spec.name for spec in self.card.outputs}
        if inputs.keys() != {'image'} or len(shape) != 4 or names != set(LEVELS):
            raise EngineError(f'{path.name} is no image encoder of SAM 2: it takes '
                              f'{", ".join(inputs)} and gives {", ".join(sorted(names))}: run '
                              '"mos import gmos" or "mos import sam2"')
        self.size = shape[2], shape[3]
        self.reset()

    def reset(self) -> None:
        """Forget the last frame."""
        self._last: tuple[np.ndarray, Mapping[str, np.ndarray]] | None = None

    def of(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """`appearance` (1, C, g, g), `middle` and `fine` of (H, W, 3) uint8 RGB, squeezed to a
        square as published. Raises EngineError for a failed inference.
        """
        if self._last is None or self._last[0] is not image:
            tensor = image_tensor(image, self.size, self.card.image)
            self._last = image, self.engine.run({'image': tensor[None]})
        return self._last[1]
