"""The published GMOS and GMOS-S with their two frozen encoders, over the graphs of `mos import`.

    five frames -> tokens (each frame's once) -> geometry of the middle one |
    that frame -> appearance                                               | -> head -> instances

Frames are chosen by time: of those there are the nearest to each, so that at the ends of a video
the first and the last are seen again, as published. To Pi3 frames have no order (it is
permutation-equivariant): the frame asked for is always put in the middle, so that one graph serves
the causal window, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mos_perception.config import Config
from mos_perception.datatypes import Frame, Instances, SyncedInput
from mos_perception.engine.card import ModelCard, check
from mos_perception.engine.interface import Engine
from mos_perception.errors import EngineError
from mos_perception.models.gmos.model import BINARY_OUTPUTS
from mos_perception.models.gmos.proposals import above, to_parts, to_proposals
from mos_perception.models.outputs import limits
from mos_perception.models.preprocess import image_tensor
from mos_perception.motion.history import FrameWindow
from mos_perception.propagation.appearance import LEVELS, AppearanceEncoder
from mos_perception.stages import StageTimes
from mos_perception.tracking import PROPAGATORS

GRAPHS = ('tokens', 'geometry', 'head')
OUTPUTS = {'mask_logits', 'motion_logits', 'quality', 'embeddings'}
FRAMES, TARGET = 5, 2
MAX_SQUEEZE = 1.05  # of the aspect: geometry learned from square pixels
PI3_PIXELS, PI3_PATCH = 255_000, 14


class WholeGmos:
    """Windows, encoders, head, post-processing. Remembers the tokens of frames that a later window
    may need, until the epoch changes.
    """

    def __init__(self, engines: Mapping[str, Engine], cards: Mapping[str, ModelCard],
                 appearance: AppearanceEncoder) -> None:
        """`engines` and `cards` of `GRAPHS`; the head's card is the model's.

        Raises EngineError where cards, graphs and GMOS disagree.
        """
        for name in GRAPHS:
            check(cards[name], engines[name])
        self.engines, self.cards, self.appearance = engines, cards, appearance
        self.card = cards['head']
        self.window = self.card.frames or FrameWindow()
        self.size = _check_tensors(cards)
        self._binary = {spec.name for spec in self.card.outputs} == BINARY_OUTPUTS
        self._epoch, self._encoded = 0, 0
        self.score_threshold = self.card.postprocess.score_threshold
        self.top_k = self.card.postprocess.top_k
        self.all_proposals = False  # the propagator chooses among them itself
        self.reset()

    def configure(self, config: Config) -> None:
        """Take the live parameters; negative and 0 mean the card's values."""
        self.score_threshold, self.top_k = limits(config, self.card)
        self.all_proposals = config.tracker in PROPAGATORS

    def report(self) -> dict[str, Any]:
        """The head's engine, all licences, and what the memory of tokens holds."""
        cards = [*self.cards.values(), self.appearance.card]
        licences = dict.fromkeys(part for card in cards for part in card.licence.split('; '))
        return {**self.engines['head'].report(), 'licence': '; '.join(licences),
                'frames encoded': self._encoded, 'frames remembered': len(self._tokens)}

    def reset(self) -> None:
        """Forget what was seen."""
        self._tokens: dict[int, tuple[Frame, np.ndarray]] = {}
        self.appearance.reset()

    def detect(self, sample: SyncedInput, stages: StageTimes) -> Instances:
        """Instances at `sample.size`, best first; none without a frame.

        Raises EngineError for a failed inference, for outputs that are not finite, and for frames
        of another shape than the graphs are for.
        """
        if sample.epoch != self._epoch:
            self.reset()
            self._epoch = sample.epoch
        frame = sample.frame or Frame(sample.stamp_ns, np.zeros((*self.size, 3), np.uint8))
        with stages.timed('pre'):
            check_aspect(frame.size, self.size)
            window = window_frames(frame, sample.neighbours, self.window)
            fresh = self._fresh(window)
        with stages.timed('engine'):
            for other, image in fresh:
                tokens = self.engines['tokens'].run({'image': image[None]})['tokens']
                self._tokens[other.stamp_ns] = other, tokens
                self._encoded += 1
            tokens = np.stack([self._tokens[other.stamp_ns][1] for other in window], 1)
            outputs = self.engines['head'].run({
                **self.engines['geometry'].run({'tokens': tokens}),
                **self.appearance.of(frame.image)})
        with stages.timed('post'):
            found = self._instances(outputs, sample.size)
        if sample.frame is None:
            self.reset()
            return Instances.empty(*sample.size, found.embeddings.shape[1])
        return found

    def _fresh(self, window: list[Frame]) -> list[tuple[Frame, np.ndarray]]:
        """The frames to encode, with their tensors (3, H, W); what no later window can want goes.

        A later frame's window begins later: nothing before this one's first is looked at again.
        """
        oldest = min(frame.stamp_ns for frame in window)
        self._tokens = {stamp: kept for stamp, kept in self._tokens.items() if stamp >= oldest}
        spec = self.cards['tokens'].image
        missing = {frame.stamp_ns: frame for frame in window
                   if self._tokens.get(frame.stamp_ns, (None,))[0] is not frame}
        return [(frame, image_tensor(frame.image, self.size, spec)) for frame in missing.values()]

    def _instances(self, outputs: dict[str, np.ndarray], size: tuple[int, int]) -> Instances:
        if self._binary:
            return to_parts(outputs, size, self.score_threshold, self.top_k)
        found = to_proposals(outputs, size, self.top_k)
        return found if self.all_proposals else above(found, self.score_threshold)


def window_frames(frame: Frame, neighbours: tuple[Frame, ...], window: FrameWindow) -> list[Frame]:
    """The five frames, oldest first but for `frame`, which is in the middle."""
    there = sorted((*neighbours, frame), key=lambda other: other.stamp_ns)
    others = [min(there, key=lambda other: abs(other.stamp_ns - frame.stamp_ns - gap * 1e6))
              for gap in sorted(window.signed_gaps_ms)]
    return [*others[:TARGET], frame, *others[TARGET:]]


def check_aspect(frame: tuple[int, int], graph: tuple[int, int]) -> None:
    """Raise EngineError where frames (height, width) would be squeezed to fit the graphs."""
    squeeze = frame[1] * graph[0] / (frame[0] * graph[1])
    if not 1 / MAX_SQUEEZE <= squeeze <= MAX_SQUEEZE:
        height, width = pi3_size(frame)
        raise EngineError(
            f'frames are {frame}, the graphs see {graph} (height, width): shapes differ by more '
            f'than 5 %; import the model again with --image-size {height} {width}')


def pi3_size(frame: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which Pi3 sees frames of (height, width): multiples of 14 px, 255,000 at
    most (github.com/yyfz/Pi3, pi3/utils/basic.py).
    """
    height, width = frame
    scale = (PI3_PIXELS / (width * height)) ** 0.5
    columns, rows = (max(1, round(side * scale / PI3_PATCH)) for side in (width, height))
    while columns * rows * PI3_PATCH ** 2 > PI3_PIXELS:
        if columns / rows > width / height:
            columns -= 1
        else:
            rows -= 1
    return rows * PI3_PATCH, columns * PI3_PATCH


def _check_tensors(cards: Mapping[str, ModelCard]) -> tuple[int, int]:
    """(H, W) of the image that `tokens` takes. Raises EngineError unless all graphs fit together.
    """
    inputs = {name: {spec.name: spec.shape for spec in cards[name].inputs} for name in GRAPHS}
    outputs = {name: {spec.name: spec.shape for spec in cards[name].outputs} for name in GRAPHS}
    tokens, head = outputs['tokens'].get('tokens', ()), set(outputs['head'])
    image = inputs['tokens'].get('image', ())
    fits = (len(image) == 4 and len(tokens) == 3
            and inputs['geometry'].get('tokens') == (1, FRAMES, *tokens[1:])
            and outputs['geometry'].get('geometry') == inputs['head'].get('geometry')
            and inputs['head'].keys() == {'geometry', *LEVELS}
            and head in (OUTPUTS, BINARY_OUTPUTS))
    if not fits:
        raise EngineError(f'model {cards["head"].id}: its graphs do not fit together: inputs '
                          f'{inputs}, outputs {outputs}: import the model again')
    return image[2], image[3]
