"""Our propagator over SAM 2.1's memory against the official video predictor.

`python -m training.parity_memory --official FOLDER [--out goldens.json]`

FOLDER as in `training.parity_sam2`, whose small network of random weights both sides get. Two
objects, a corrected one and one that comes later are carried over more frames than are remembered;
then two prompts in the middle of the film are carried forwards and backwards. The official code
fills holes by a CUDA kernel and keeps memories in bfloat16: both are off here, as in ours.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from mos_perception.engine.interface import TensorSpec
from mos_perception.errors import EngineError
from mos_perception.propagation import Carried, MaskPropagator
from mos_perception.propagation.sam2_memory import Sam2Propagator
from training.checkpoints import take
from training.nets.sam2 import AppearanceEncoder, from_official, make_sam2
from training.nets.sam2_memory import MaskFromMemory, MaskPrompt, MemoryEncoder
from training.parity import TOLERANCE, keep_goldens, parser_of, seeded, spelled, use_official
from training.parity_sam2 import SIDE, WIDTH, official_network, official_state, tiny_config

FRAMES, SIZE = 26, (120, 160)
_SAMPLES = 24  # of each logit map, that are kept


def images() -> Tensor:
    """(FRAMES, 3, SIDE, SIDE), alike, normalised."""
    return seeded((1, 3, SIDE, SIDE), 7, 'still') + 0.3 * seeded((FRAMES, 3, SIDE, SIDE), 7, 'film')


def _box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:top + height, left:left + width] = True
    return mask


def film(propagator: MaskPropagator) -> Iterator[tuple[str, Carried]]:
    """What happens on each frame, by a name."""
    one, other = _box(20, 30, 40, 50), _box(70, 90, 35, 41)
    propagator.prompt(0, 1, one)
    for frame in range(FRAMES):
        found = propagator.carry(frame)
        if frame == 3:
            found = propagator.prompt(3, 2, other)
        if frame == 6:
            found = propagator.prompt(6, 1, np.roll(one, 5, 1))
        yield f'online {frame}', found
    propagator.reset()
    propagator.prompt(10, 1, one)
    propagator.prompt(12, 2, other)
    for frame in range(12, FRAMES):
        yield f'forwards {frame}', propagator.carry(frame)
    for frame in range(12, -1, -1):
        yield f'backwards {frame}', propagator.carry(frame, -1)


class _ModuleEngine:
    """A module of the video memory as an engine."""

    def __init__(self, module: nn.Module, names: tuple[str, ...], outputs: tuple[str, ...],
                 shapes: dict[str, tuple[int, ...]]) -> None:
        self.module, self.names, self.output_names = module.eval(), names, outputs
        self.inputs = tuple(TensorSpec(name, shapes.get(name, ()), 'float32') for name in names)
        self.outputs = tuple(TensorSpec(name, (), 'float32') for name in outputs)

    @torch.no_grad()
    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Engine`."""
        found = self.module(*(torch.from_numpy(inputs[name]) for name in self.names))
        found = (found,) if isinstance(found, Tensor) else found
        return {name: value.numpy() for name, value in zip(self.output_names, found, strict=True)}

    def report(self) -> dict[str, Any]:
        """See `Engine`."""
        return {'backend': 'torch'}


def ours(state: dict[str, Tensor]) -> Sam2Propagator:
    """Our propagator over modules in torch, of an official state dict."""
    sam2 = make_sam2(tiny_config())
    take(sam2, from_official(state), 'official weights')
    encode, levels = AppearanceEncoder(sam2).eval(), ('appearance', 'middle', 'fine')
    grid, slots = SIDE // 16, sam2.config.max_object_pointers_in_encoder
    shapes: dict[str, tuple[int, ...]] = {
        'appearance': (1, WIDTH, grid, grid), 'pointers': (slots, sam2.hidden_dim),
        'memory': (sam2.num_maskmem, grid * grid, sam2.mem_dim),
        'memory_valid': (sam2.num_maskmem,), 'pointer_age': (slots,), 'pointer_valid': (slots,)}
    engines = {
        'memory_encoder': _ModuleEngine(MemoryEncoder(sam2), (
            'appearance', 'mask_logits', 'object_score'), ('memory',), shapes),
        'mask_prompt': _ModuleEngine(MaskPrompt(sam2), (*levels, 'mask'),
                                     ('pointer', 'object_score'), shapes),
        'mask_from_memory': _ModuleEngine(
            MaskFromMemory(sam2), (*levels, 'memory', 'memory_valid', 'pointers', 'pointer_age',
                                   'pointer_valid'),
            ('mask_logits', 'iou', 'object_score', 'pointer'), shapes)}
    with torch.no_grad():
        known = [{name: value.numpy() for name, value in zip(levels, encode(image[None]))}
                 for image in images()]
    return Sam2Propagator(engines, known.__getitem__, SIZE)


class _Official:
    """The official predictor behind our interface."""

    def __init__(self, predictor: Any, new_state: Callable[[], dict[str, Any]]) -> None:
        self.predictor, self.new_state = predictor, new_state
        self.reset()

    def reset(self) -> None:
        self.state, self.sweep, self.now = self.new_state(), None, (0, 0)

    def forget(self, number: int) -> None:
        self.predictor.remove_object(self.state, number)

    def prompt(self, frame: int, number: int, mask: np.ndarray) -> Carried:
        self.sweep = None
        _, ids, logits, iou = self.predictor.add_new_mask(
            self.state, frame, number, mask, with_object_ious=True)
        return _carried(ids, logits, iou)

    def carry(self, frame: int, step: int = 1) -> Carried:
        if self.sweep is None or self.now != (frame - step, step):
            self.sweep = self.predictor.propagate_in_video(
                self.state, start_frame_idx=frame, reverse=step < 0, with_object_ious=True)
        self.now = frame, step
        _, ids, logits, iou = next(self.sweep)
        return _carried(ids, logits, iou)


def _carried(ids: list[int], logits: Tensor, iou: Tensor) -> Carried:
    return Carried(tuple(ids), logits[:, 0].float().numpy(), iou.float().numpy().ravel())


def official() -> tuple[_Official, dict[str, Tensor]]:
    """The official predictor and its weights."""
    base = importlib.import_module('sam2.modeling.sam2_base')
    predictor = importlib.import_module('sam2.sam2_video_predictor').SAM2VideoPredictor

    def make(encoder: nn.Module, attention: nn.Module, memory: nn.Module, **rest: Any) -> nn.Module:
        return predictor(
            image_encoder=encoder, memory_attention=attention, memory_encoder=memory,
            fill_hole_area=0, binarize_mask_from_pts_for_mem_enc=True, **rest)

    with mock.patch.object(base, 'SAM2Base', make):
        network = official_network()
    state = official_state({key: list(value.shape)
                            for key, value in network.state_dict().items()})
    network.load_state_dict(state)
    pictures = images()

    def new_state() -> dict[str, Any]:
        cpu = torch.device('cpu')
        empty: dict[str, Any] = {name: {} for name in (
            'point_inputs_per_obj', 'mask_inputs_per_obj', 'cached_features', 'constants',
            'obj_id_to_idx', 'obj_idx_to_id', 'output_dict_per_obj', 'temp_output_dict_per_obj',
            'frames_tracked_per_obj')}
        return empty | {
            'images': pictures, 'num_frames': FRAMES, 'offload_video_to_cpu': False,
            'offload_state_to_cpu': False, 'video_height': SIZE[0], 'video_width': SIZE[1],
            'device': cpu, 'storage_device': cpu, 'obj_ids': []}

    return _Official(network, new_state), state


def samples(found: Carried) -> dict[str, Any]:
    """Numbers of a frame that are kept as goldens."""
    flat = found.logits.reshape(len(found.numbers), -1)
    at = np.linspace(0, flat.shape[1] - 1, _SAMPLES).astype(int)
    return {'numbers': list(found.numbers), 'iou': [round(float(v), 6) for v in found.iou],
            'logits': np.round(flat[:, at].astype(float), 5).tolist()}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    given = parser_of('Hold the video memory against the official one.').parse_args(arguments)
    use_official(given.official)
    theirs, state = official()
    kept, worst = {}, {'logits': 0.0, 'iou': 0.0}
    with mock.patch.object(torch, 'bfloat16', torch.float32):
        wanted_film = list(film(theirs))
    for (name, wanted), (_, found) in zip(wanted_film, film(ours(state)), strict=True):
        if wanted.numbers != found.numbers:
            raise EngineError(f'{name}: ours has objects {found.numbers}, the official predictor '
                              f'{wanted.numbers}')
        kept[name] = samples(wanted)
        for key in worst:
            difference = np.abs(getattr(wanted, key) - getattr(found, key)).max()
            worst[key] = max(worst[key], float(difference))
            if difference > TOLERANCE:
                raise EngineError(f'{name}: {key} differ by {difference}: must be <= {TOLERANCE}')
    print(f'{len(kept)} frames: {spelled(worst)}')
    keep_goldens(given.out, kept)


if __name__ == '__main__':
    main()
