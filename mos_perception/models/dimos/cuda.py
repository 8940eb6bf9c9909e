"""DIMOS where its tensors lie in GPU memory: one graph from frame and events to a few numbers, one to the label image.

    pinned frame, events -> voxel, image kernels -> network -> quality kernel -> class logits, embeddings, quality
    order of the masks (CPU, `dimos.choose`) -> claim kernels -> label image

Not run on a GPU by us yet: tests run the kernels' source and this module on the CPU (test/unit/test_dimos_cuda.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mos_perception.datatypes import EventWindow, Frame, Instances
from mos_perception.engine import DeviceEngine
from mos_perception.engine.card import ModelCard
from mos_perception.engine.kernels import compile_cubin
from mos_perception.errors import EngineError
from mos_perception.models.dimos.cuda_input import InputStage
from mos_perception.models.dimos.cuda_masks import MaskStage
from mos_perception.models.dimos.model import DimosModel, choose, finite, gather, softmax

SOURCES = {'voxel': Path(__file__).parents[2] / 'events' / 'voxel.cu', 'frame': Path(__file__).parent / 'frame.cu'}
VECTORS = ('class_logits', 'embeddings')


class DimosCuda(DimosModel):
    """One DIMOS network on a GPU. From one thread at a time: `voxel`, `image`, `infer`, `postprocess`."""

    def __init__(self, engine: DeviceEngine, card: ModelCard, score_threshold: float | None = None,
                 max_objects: int = 0, compiler: Callable[[Path, tuple[int, int]], bytes] = compile_cubin) -> None:
        """Raises EngineError where card, graph and DIMOS disagree, or the kernels cannot make the card's input."""
        super().__init__(engine, card, score_threshold, max_objects)
        if (card.voxel.normalise, card.voxel.resize) != ('max', 'bin') or any(
                spec.dtype != 'float32' for spec in (*card.inputs, *card.outputs)):
            raise EngineError(f'model {card.id}: voxels are "{card.voxel.normalise}", "{card.voxel.resize}", or a '
                              'tensor is no float32: on a GPU we run "max", "bin", float32; use "backend: onnxruntime"')
        driver, stream = engine.driver, engine.stream
        driver.activate()
        modules = {name: driver.load_cubin(compiler(path, engine.gpu.capability)) for name, path in SOURCES.items()}
        shapes = {spec.name: spec.shape for spec in card.outputs}
        self._input = InputStage(driver, stream, modules, card, engine.address('image'), engine.address('voxel'),
                                 self.size, self.voxel_shape[0])
        self._masks = MaskStage(driver, stream, modules['frame'], engine.address('mask_logits'),
                                shapes['mask_logits'][1:], self.size)
        self._vectors = {name: driver.pinned(shapes[name], 'float32') for name in VECTORS}
        self._replay: Callable[[], None] = lambda: None

    def voxel(self, window: EventWindow | None) -> None:
        """Copy the events to where the GPU reads them."""
        self.engine.driver.activate()  # any method may be the first in its thread, and allocate
        self._input.events(window)

    def image(self, frame: Frame | None) -> None:
        """Copy the pixels to where the GPU reads them."""
        self.engine.driver.activate()
        self._input.frame(frame)

    def infer(self, image: Any = None, voxel: Any = None) -> dict[str, np.ndarray]:
        """`class_logits`, `embeddings` and `quality` (Q,) of the last frame and window; the masks stay on the GPU.

        Raises EngineError.
        """
        driver, stream = self.engine.driver, self.engine.stream
        driver.activate()
        if self._input.stale:  # the first time, and when a size changed
            self._enqueue()
            driver.synchronize(stream)
            self._replay = driver.capture(self._enqueue, stream)
            self._input.stale = False
        else:
            self._replay()
            driver.synchronize(stream)
        self._input.check()
        return {name: array.copy() for name, array in self._vectors.items()} | {'quality': self._masks.quality()}

    def postprocess(self, outputs: dict[str, np.ndarray], size: tuple[int, int], parity: bool = False) -> Instances:
        """Instances at frame `size`, best first, of the masks that the last `infer` left on the GPU.

        Raises EngineError for outputs that are not finite, and for `parity`: that is for comparisons, on the CPU.
        """
        if parity:
            raise EngineError('parity is not made on a GPU: use "backend: onnxruntime"')
        self.engine.driver.activate()
        probs_q3 = softmax(finite(outputs, 'class_logits'))
        kept = choose(probs_q3, outputs['quality'].__getitem__, self.score_threshold, self.most)
        masks, boxes, rows = self._masks.compose([query for query, _ in kept], size)
        return gather([kept[row] for row in rows], masks, boxes, probs_q3, finite(outputs, 'embeddings'))

    def _enqueue(self) -> None:
        self._input.enqueue()
        self.engine.enqueue()
        self._masks.enqueue_quality()
        for name, array in self._vectors.items():
            self.engine.driver.d2h(array, self.engine.address(name), self.engine.stream)
