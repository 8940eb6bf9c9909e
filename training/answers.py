"""What the robot answers to samples given one after the other, by the runtime's own stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count

from mos_perception.datatypes import Instances, SyncedInput
from mos_perception.models import Model
from mos_perception.motion.backward_flow import BackwardFlow
from mos_perception.motion.history import Surroundings
from mos_perception.motion.neighbours import Neighbours
from mos_perception.stages import StageTimes

_EPOCHS = count(1)


def answers(model: Model, samples: Iterable[SyncedInput],
            spec: Surroundings | None) -> Iterator[tuple[Instances, StageTimes]]:
    """The model's instances of each sample, in order, and how long each stage took.

    `spec` of what the model looks at around a frame, None where it looks at one frame: such a model
    answers with nothing where there is no frame.
    """
    neighbours, epoch = Neighbours(spec), next(_EPOCHS)

    def complete() -> Iterator[SyncedInput]:
        for sample in samples:
            yield from neighbours.push([replace(sample, epoch=epoch)])
        yield from neighbours.flush([])

    backward = BackwardFlow()
    for sample in complete():
        stages = StageTimes()
        if spec is not None:  # others make no use of it
            with stages.timed('flow'):
                sample = backward.attach(sample)
        yield model.detect(sample, stages), stages
        backward.answered(sample)
