"""Where the sequences of a data set lie: finding them below a folder, and choosing one by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from mos_perception.errors import DatasetError
from mos_perception.formats.image_files import IMAGE_SUFFIXES

Found = TypeVar('Found')


def below(path: Path, pattern: str, levels: int) -> list[Path]:
    """What matches `pattern` in the folder `path` and up to `levels` folders down."""
    if not path.is_dir():
        return []
    depths = ('*/' * level for level in range(levels + 1))
    return [file for depth in depths for file in sorted(path.glob(depth + pattern))]


def by_relative_name(folders: Iterable[Path], path: Path) -> dict[str, Path]:
    """Folders at or under `path` by their path from there; `path` itself by its own name."""
    return {folder.name if folder == path else folder.relative_to(path).as_posix(): folder
            for folder in folders}


def images(folder: Path) -> list[Path]:
    """Image files of a folder in order of name."""
    return sorted(file for file in folder.glob('*') if file.suffix.lower() in IMAGE_SUFFIXES)


def frames_of(masks: list[Path], frames: list[Path], place: Path) -> list[int]:
    """For each mask the number of its frame: by equal names, else by order where all have one.

    Raises DatasetError that names `place` where neither holds.
    """
    known = {file.stem: n for n, file in enumerate(frames)}
    if all(file.stem in known for file in masks):
        return [known[file.stem] for file in masks]
    if len(masks) == len(frames):
        return list(range(len(frames)))
    lost = next(file.stem for file in masks if file.stem not in known)
    raise DatasetError(f'{place} has {len(masks)} masks for {len(frames)} frames, and none of '
                       f'them is called {lost}: fetch it again')


def chosen(found: Mapping[str, Found], name: str, path: str | Path, what: str,
           nothing: str = 'none') -> Found:
    """The sequence `name` of those found at `path`, the first one for ''.

    `what` and `nothing` serve the DatasetError that is raised where there is none.
    """
    name_or_first = name or next(iter(found), '')
    if name_or_first not in found:
        raise DatasetError(
            f'{path} has no {what} sequence {name}: it has {", ".join(found) or nothing}')
    return found[name_or_first]


def refuse_existing(path: Path, what: str) -> None:
    """Raises DatasetError where `path` exists; `what` to name differently then."""
    if path.exists():
        raise DatasetError(f'{path} exists: name another {what}')


def refuse_twins(path: Path, what: str, values: Iterable[Hashable]) -> None:
    """Raises DatasetError where two videos of the file `path` share `what`, one of `values` each.
    """
    for value, count in Counter(values).items():
        if count > 1:
            raise DatasetError(f'{path} has {count} videos of {what} {value!r}: each must have its '
                               'own; rename or remove all but one')
