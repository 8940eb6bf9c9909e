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
    """B samples, C planes of a voxel, H W the network's size."""

    image: Tensor
    """(B, 3, H, W) normalised, the network's input."""
    voxel: Tensor
    """(B, C, H, W) normalised, the network's input."""
    unaugmented: Tensor
    """(B, 3, H, W) normalised, flipped as `image` but with its colours: for the flow loss."""
    previous: Tensor
    """(B, 3, H, W) the frame before, as `unaugmented`."""
    targets: Targets
    """What is to be found."""
    flow: Tensor | None = None
    """(B, 2, H/2, W/2) px of the input to the previous frame, NaN where unknown.

    None if the recipe does not ask for it.
    """
    evidence: Tensor | None = None
    """(B, E, H, W) motion evidence, the network's input; None if the recipe has none."""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        targets = self.targets
        return Batch(
            image=self.image.to(device),
            voxel=self.voxel.to(device),
            unaugmented=self.unaugmented.to(device),
            previous=self.previous.to(device),
            targets=Targets(targets.labels.to(device), targets.masks.to(device),
                            targets.boxes.to(device)),
            flow=None if self.flow is None else self.flow.to(device),
            evidence=None if self.evidence is None else self.evidence.to(device),
        )


class Source(ABC):
    """A set of samples, used in a `with` block.

    `about` goes into the checkpoint and says what the samples are.
    """

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
