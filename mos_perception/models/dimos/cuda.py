"""DIMOS where its tensors lie in GPU memory: two CUDA graphs a frame.

    pinned frame, events -> voxel, image kernels -> network -> quality kernel
        -> class logits, embeddings, quality
    order of the masks (CPU, `postprocess.select_queries`) -> claim kernels -> label image

What of it has run on a GPU: docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.engine.card import ModelCard
from mos_perception.engine.interface import DeviceEngine
from mos_perception.engine.kernels import compile_cubin
from mos_perception.errors import EngineError
from mos_perception.models.dimos.cuda_input import InputStage
from mos_perception.models.dimos.cuda_masks import MaskStage
from mos_perception.models.dimos.model import EVIDENCE, DimosModel
from mos_perception.models.dimos.postprocess import build_instances, select_queries
from mos_perception.models.ego import without_ego
from mos_perception.models.motion_input import evidence_shape
from mos_perception.models.outputs import finite, softmax
from mos_perception.stages import StageTimes

SOURCES = {'voxel': Path(__file__).parents[2] / 'events' / 'voxel.cu',
           'frame': Path(__file__).parent / 'frame.cu'}
VECTORS = ('class_logits', 'embeddings')


class DimosCuda(DimosModel):
    """One DIMOS network on a GPU. `detect` runs in one thread at a time, whichever made it."""

    def __init__(self, engine: DeviceEngine, card: ModelCard,
                 compiler: Callable[[Path, tuple[int, int]], bytes] = compile_cubin) -> None:
        """Raises EngineError where card, graph and DIMOS disagree, or the kernels cannot make the
        card's input.
        """
        super().__init__(engine, card)
        _check_kernels_fit(card)
        driver, stream = engine.driver, engine.stream
        driver.activate()
        modules = {name: driver.load_cubin(compiler(path, engine.gpu.capability))
                   for name, path in SOURCES.items()}
        shapes = {spec.name: spec.shape for spec in card.outputs}
        self._input = InputStage(driver, stream, modules, card, engine.address('image'),
                                 engine.address('voxel'), self.size, self.voxel_shape[0])
        self._masks = MaskStage(driver, stream, modules['frame'], engine.address('mask_logits'),
                                shapes['mask_logits'][1:], self.size)
        self._vectors = {name: driver.pinned(shapes[name], 'float32') for name in VECTORS}
        self._evidence: np.ndarray | None = None  # computed on the CPU
        if card.evidence is not None:
            self._evidence = driver.pinned(evidence_shape(card), 'float32')
        self._replay: Callable[[], None] = lambda: None

    def detect(self, sample: SyncedInput, stages: StageTimes,
               as_released: bool = False) -> Instances:
        """Instances at `sample.size`, best first.

        Raises EngineError for outputs that are not finite, for a grid too full for the kernels,
        and for `as_released`: that is for comparisons, on the CPU.
        """
        if as_released:
            raise EngineError('as_released is not made on a GPU: use "backend: onnxruntime"')
        self.engine.driver.activate()  # any thread may come first, and allocate
        evidence, moved = self.motion(sample, stages)
        with stages.timed('voxel'):
            self._input.events(sample.window, moved)
        with stages.timed('pre'):
            self._input.frame(sample.frame)
            if evidence is not None:
                self._evidence[...] = evidence
        with stages.timed('engine'):
            outputs = self.infer()
        with stages.timed('post'):
            found = self._instances(outputs, self._masks.quality(), sample.size)
        return without_ego(found, sample, stages) if self.ego_motion else found

    def infer(self) -> dict[str, np.ndarray]:
        """Class logits and embeddings of what lies in the input stage; the masks stay on the GPU.

        Raises EngineError.
        """
        driver, stream = self.engine.driver, self.engine.stream
        if self._input.stale:  # the first time, and when a size changed
            self._enqueue()
            driver.synchronize(stream)
            self._replay = driver.capture(self._enqueue, stream)
            self._input.stale = False
        else:
            self._replay()
            driver.synchronize(stream)
        self._input.check()
        return {name: array.copy() for name, array in self._vectors.items()}

    def _instances(self, outputs: dict[str, np.ndarray], quality_q: np.ndarray,
                   size: tuple[int, int]) -> Instances:
        probs_q3 = softmax(finite(outputs, 'class_logits'))
        embeddings_qd = finite(outputs, 'embeddings')
        selected = select_queries(probs_q3, quality_q.__getitem__, self.score_threshold, self.top_k)
        masks, boxes, rows = self._masks.compose([query for query, _ in selected], size)
        return build_instances([selected[row] for row in rows], masks, boxes, probs_q3,
                               embeddings_qd)

    def _enqueue(self) -> None:
        self._input.enqueue()
        if self._evidence is not None:
            self.engine.driver.h2d(self.engine.address(EVIDENCE), self._evidence,
                                   self.engine.stream)
        self.engine.enqueue()
        self._masks.enqueue_quality()
        for name, array in self._vectors.items():
            self.engine.driver.d2h(array, self.engine.address(name), self.engine.stream)


def _check_kernels_fit(card: ModelCard) -> None:
    """Raise EngineError unless the voxel kernel makes what the card asks for."""
    voxel = card.voxel
    single = all(spec.dtype == 'float32' for spec in (*card.inputs, *card.outputs))
    if (voxel.normalise, voxel.resize) != ('max', 'bin') or not single:
        raise EngineError(
            f'model {card.id}: voxels are "{voxel.normalise}", "{voxel.resize}", or a '
            'tensor is no float32: on a GPU we run "max", "bin", float32; use '
            '"backend: onnxruntime"'
        )
