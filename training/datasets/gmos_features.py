"""What a GMOS learns from: the frozen encoders' features of rendered clips, computed once.

`python -m training.datasets.gmos_features --recipe gmos --clips FOLDER... --pi3 F --sam2 F --out
FOLDER` encodes a window of each clip of some folders of `training.scenes.cache`, `--passes` of
them. A command that was stopped goes on where it was.

A sample is one file: the four feature maps in int8, each channel by its own greatest value (5.6 MB
at the published sizes, half of float16; off by 1/254 of that value at most), the label and how
certain it is. As the encoders are frozen, augmentation comes before them: another pass is another
frame of the clip, mirrored or not, or one picture of it under a moving camera (`still_window`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mos_perception.engine.card import ImageSpec
from mos_perception.errors import ConfigError, DatasetError
from mos_perception.models.gmos.whole import FRAMES, MAX_SQUEEZE, window_frames
from mos_perception.models.preprocess import image_tensor
from training.command import command
from training.datasets.source import Source
from training.datasets.still_window import still_window
from training.import_gmos import load_pi3
from training.import_sam2 import load_sam2
from training.nets import sam2
from training.nets.gmos_whole import Convolutions, encode
from training.nets.pi3 import MEAN, STD, Pi3Trunk
from training.parity import fill
from training.recipes_gmos import GMOS_RECIPES, GmosRecipe
from training.scenes.clip import Clip
from training.scenes.shards import load_shard
from training.video_cache import moves_at, numbered

MAPS = ('geometry', 'appearance', 'middle', 'fine')
MAX_OBJECTS = 20
_METADATA = 'set.json'

_PLAIN = ImageSpec((0.0,) * 3, (1.0,) * 3)

Encode = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""`nets.gmos_whole.encode` of some encoders: float32 on the CPU."""


@dataclass(frozen=True)
class GmosBatch:
    """B samples; C channels of a map, g the fused grid's side."""

    maps: dict[str, Tensor]
    """By `MAPS`, (B, C, h, w) int8."""
    scales: dict[str, Tensor]
    """By `MAPS`, (B, C): the maps' steps."""
    labels: Tensor
    """(B, 4g, 4g) uint8: 0, or 1, 2, ... for each object that moves, the largest first."""
    certain: Tensor
    """(B, 20) of the objects, 1 - exp(-(d / 2s)^2): see `losses.gmos_whole`."""

    def features(self) -> tuple[Tensor, ...]:
        """Float32, as the network takes them: geometry (B, h, w, C), the others (B, C, h, w)."""
        maps = [self.maps[name] * self.scales[name][..., None, None] for name in MAPS]
        return maps[0].permute(0, 2, 3, 1), *maps[1:]

    def to(self, device: torch.device) -> GmosBatch:
        """The batch on a device."""
        maps, scales = ({name: value.to(device) for name, value in part.items()}
                        for part in (self.maps, self.scales))
        return GmosBatch(maps, scales, self.labels.to(device), self.certain.to(device))


def views(clip: Clip, recipe: GmosRecipe, rng: np.random.Generator
          ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """A random frame's window of five images, its label (4g, 4g) and `certain` (20,)."""
    at, side = int(rng.integers(len(clip))), 4 * recipe.net.grid
    certain = np.ones(MAX_OBJECTS, np.float32)
    if rng.random() < recipe.stills:
        images = still_window(clip.frames[at], rng, FRAMES)
        label = np.zeros((side, side), np.uint8)
    else:
        others = tuple(clip.frame(n) for n in range(len(clip)) if n != at)
        images = [frame.image for frame in window_frames(clip.frame(at), others, recipe.window)]
        label, ids = numbered(clip.ids[at], moves_at(clip, at), (side, side), MAX_OBJECTS)
        away = transition_s(clip, at)[ids] * 1e3 / (2 * recipe.window.stride_ms)
        certain[:len(ids)] = 1 - np.exp(-away ** 2)
    if rng.random() < recipe.flip:
        images, label = [image[:, ::-1] for image in images], label[:, ::-1].copy()
    return images, label, certain


def transition_s(clip: Clip, at: int) -> np.ndarray:
    """(K + 1,) s from frame `at` to the nearest moment in which an object starts or stops; inf
    where it does neither.
    """
    # row n tells of the time before frame n: a change shows from frame n - 1 on
    changes = clip.moving[1:] != clip.moving[:-1]
    away = np.abs(clip.stamps_ns[:-1] - clip.stamps_ns[at])[:, None] * 1e-9
    return np.where(changes, away, np.inf).min(0, initial=np.inf)


def quantised(values: Tensor) -> tuple[Tensor, Tensor]:
    """int8 (C, h, w) and the channels' steps (C,) of float maps."""
    scale = values.abs().flatten(1).amax(1).clamp(min=1e-12) / 127
    steps = (values / scale[:, None, None]).round().to(torch.int8)
    return steps.contiguous(), scale


def sample(clip: Clip, recipe: GmosRecipe, encoders: Encode,
           rng: np.random.Generator) -> dict[str, Tensor]:
    """A file's tensors: by `MAPS` int8 and `NAME.scale`, `label`, `certain`."""
    images, label, certain = views(clip, recipe, rng)
    side = 16 * recipe.net.grid
    window = np.stack([image_tensor(image, recipe.geometry.size, _PLAIN) for image in images])
    square = image_tensor(images[FRAMES // 2], (side, side), ImageSpec(MEAN, STD))
    found = encoders(torch.from_numpy(window)[None], torch.from_numpy(square)[None])
    maps = dict(zip(MAPS, (found[0].permute(0, 3, 1, 2), *found[1:])))
    tensors = {'label': torch.from_numpy(label), 'certain': torch.from_numpy(certain)}
    for name, values in maps.items():
        tensors[name], tensors[f'{name}.scale'] = quantised(values[0].cpu())
    return tensors


def cache(clips: Iterable[tuple[str, Clip]], passes: int, recipe: GmosRecipe, encoders: Encode,
          folder: Path, about: str) -> int:
    """`passes` samples of each named clip into `folder`, those that are not there yet; returns how
    many were made. `about`: what the encoders are. Raises ConfigError where the folder holds
    features of others, or for clips of another shape than the recipe's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {'encoders': about, **_made_for(recipe)}
    known = folder / _METADATA
    if known.exists() and (found := json.loads(known.read_text())) != metadata:
        raise ConfigError(f'{folder} holds features made with {found}, these are made with '
                          f'{metadata}: give another --out')
    _write(known, lambda part: part.write_text(json.dumps(metadata, indent=1)))
    made = 0
    for name, clip in clips:
        _check_shape(clip, recipe)
        for number in range(passes):
            path = folder / f'{name}-{number}.safetensors'
            if not path.exists():
                rng = np.random.default_rng([number, clip.seed])
                tensors = sample(clip, recipe, encoders, rng)
                _write(path, lambda part, tensors=tensors: save_file(tensors, part))
                made += 1
    return made


class GmosSet(Source):
    """A folder of samples, open for reading."""

    recipe: GmosRecipe

    def __init__(self, folder: Path, recipe: GmosRecipe) -> None:
        """Raises DatasetError: no samples there; ConfigError: made for other networks."""
        try:
            metadata = json.loads((folder / _METADATA).read_text())
        except (OSError, ValueError) as error:
            raise DatasetError(f'{folder} holds no features ({error}): make some with '
                               'python -m training.datasets.gmos_features') from error
        self._paths = sorted(folder.glob('*.safetensors'))
        if not self._paths:
            raise DatasetError(f'{folder} holds no *.safetensors: go on with python -m '
                               'training.datasets.gmos_features')
        wanted = _made_for(recipe)
        found = {name: metadata.get(name) for name in wanted}
        if found != wanted:
            raise ConfigError(f'the features in {folder} are for {found}, {recipe.name} needs '
                              f'{wanted}: make them anew')
        self.recipe, self.seed = recipe, recipe.seed
        self.about = f'{len(self)} samples in {folder.name}, {metadata["encoders"]}'

    def __len__(self) -> int:
        return len(self._paths)

    def draw(self, step: int) -> GmosBatch:
        """The samples of a step, with replacement."""
        return self.batch(self.step_rng(step).integers(len(self), size=self.recipe.batch))

    def batch(self, rows: np.ndarray) -> GmosBatch:
        """The samples of these numbers."""
        found = [load_file(self._paths[row]) for row in rows]
        stacked = {name: torch.stack([one[name] for one in found]) for name in found[0]}
        return GmosBatch({name: stacked[name] for name in MAPS},
                         {name: stacked[f'{name}.scale'] for name in MAPS},
                         stacked['label'], stacked['certain'])


def _made_for(recipe: GmosRecipe) -> dict[str, Any]:
    """What of a recipe the features depend on, as JSON gives it back."""
    net = recipe.net
    made_for = {'geometry': asdict(recipe.geometry), 'window': asdict(recipe.window),
                'grid': net.grid, 'width': net.width, 'appearance_width': net.appearance_width}
    return json.loads(json.dumps(made_for))


def _check_shape(clip: Clip, recipe: GmosRecipe) -> None:
    """Raises ConfigError where the geometry encoder would see a clip squeezed."""
    (height, width), wanted = clip.size, recipe.geometry.size
    if not 1 / MAX_SQUEEZE <= width * wanted[0] / (height * wanted[1]) <= MAX_SQUEEZE:
        raise ConfigError(f'a clip of {clip.preset} is {clip.size}, {recipe.name} sees {wanted} '
                          '(height, width): shapes may differ by 5 %, give clips like that')


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    write(part)
    part.replace(path)


def frozen(geometry: nn.Module, appearance: nn.Module, device: str = 'cpu') -> Encode:
    """Two encoders as they are run: in bfloat16 on a GPU, as published."""
    geometry, appearance = geometry.to(device).eval(), appearance.to(device).eval()
    kind = torch.device(device).type

    def run(window: Tensor, square: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=kind == 'cuda'):
            found = encode(geometry, appearance, window.to(device), square.to(device))
        return tuple(values.float().cpu() for values in found)
    return run


def random_encoders(recipe: GmosRecipe) -> Encode:
    """Of the recipe's sizes, always the same weights."""
    geometry, appearance = Pi3Trunk(recipe.geometry), Convolutions(recipe.net)
    with torch.no_grad():
        fill(geometry, 0)
        fill(appearance, 0)
    return frozen(geometry, appearance)


def open_encoders(recipe: GmosRecipe, pi3: Path | None, sam2_file: Path | None, size: str,
                  device: str) -> tuple[Encode, str]:
    """The encoders that a recipe asks for, and what they are. Raises MosError."""
    if recipe.random_encoders:
        return random_encoders(recipe), 'random encoders'
    if not (pi3 and sam2_file):
        raise ConfigError(f'{recipe.name} learns from the features of Pi3 and SAM 2.1: give their '
                          'checkpoints with --pi3 and --sam2')
    appearance = sam2.AppearanceEncoder(load_sam2(sam2_file, sam2.sam2_config(size)))
    digests = [f'{path.name} (sha256 {sha256(np.memmap(path, np.uint8, "r")).hexdigest()[:16]})'
               for path in (pi3, sam2_file)]
    return (frozen(load_pi3(pi3, recipe.geometry), appearance, device),
            f'{", ".join(digests)}, SAM 2.1 {size}')


def named_clips(folders: list[Path]) -> Iterator[tuple[str, Clip]]:
    """Each clip of folders of shards with a name of its own. Raises DatasetError for none."""
    paths = [path for folder in folders for path in sorted(folder.glob('*.npz'))]
    if not paths:
        raise DatasetError(f'no *.npz in {", ".join(map(str, folders))}: make some with python -m '
                           'training.scenes.cache --preset video-long')
    for path in track(paths, 'shards', console=Console(stderr=True)):
        for number, clip in enumerate(load_shard(path)):
            yield f'{path.stem}-{number:03d}', clip


@command('gmos_features')
def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="The frozen encoders' features of clips.")
    option = parser.add_argument
    option('--recipe', choices=sorted(GMOS_RECIPES), default='gmos',
           help='gmos and gmos_s share their features, and so do the tiny ones')
    option('--clips', type=Path, nargs='+', required=True,
           help='folders of training.scenes.cache, 16:9; a window spans 480 ms')
    option('--pi3', type=Path, help='model.safetensors of Pi3')
    option('--sam2', type=Path, help='sam2.1_hiera_*.pt')
    option('--size', choices=sam2.SIZES, default='large', help="SAM 2.1's")
    option('--passes', type=int, default=1, help='samples of each clip')
    option('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    option('--out', type=Path, required=True)
    given = parser.parse_args(arguments)
    recipe = GMOS_RECIPES[given.recipe]
    encoders, what = open_encoders(recipe, given.pi3, given.sam2, given.size, given.device)
    made = cache(named_clips(given.clips), given.passes, recipe, encoders, given.out, what)
    print(f'{given.out}: {made} samples made')
    return 0


if __name__ == '__main__':
    sys.exit(main())
