"""What the training loop asks of a data set, wherever its samples come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from training.losses.matching import Targets
from training.recipes import Recipe


@dataclass(frozen=True)
class Batch:
    """`image` and `voxel` are the network's inputs; `clean` and `previous` normalised images for the flow loss.

    `flow` (B, 2, H/2, W/2) px of the input to the previous frame, NaN where unknown; None if the recipe does not ask.
    """

    image: Tensor
    voxel: Tensor
    clean: Tensor
    previous: Tensor
    targets: Targets
    flow: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        labels, masks, boxes = (getattr(self.targets, name).to(device) for name in ('labels', 'masks', 'boxes'))
        images = (value.to(device) for value in (self.image, self.voxel, self.clean, self.previous))
        flow = None if self.flow is None else self.flow.to(device)
        return Batch(*images, Targets(labels, masks, boxes), flow)


class Source(ABC):
    """A set of samples, used in a `with` block. `about` goes into the checkpoint and says what the samples are."""

    about: str
    recipe: Recipe
    seed: int

    @abstractmethod
    def draw(self, step: int) -> Batch:
        """The training batch of a step, augmented; it depends on `seed` and the step alone."""

    def report(self) -> dict[str, float]:
        """Numbers for the log line since the last call, by name."""
        return {}

    def close(self) -> None:  # noqa: B027 (most have nothing to let go)
        """Let go of processes and files; nothing can be drawn afterwards."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def step_rng(self, step: int) -> np.random.Generator:
        """The random numbers of a step."""
        return np.random.default_rng((self.seed, step))
