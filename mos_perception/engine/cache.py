"""Built engines on disk: `<model>-<key>.plan` with a JSON side-car that says what it was built from
and for.

An engine is given back only if its side-car has exactly the key asked for and the plan's digest.
Everything else (absent, half written, cut short, edited, built elsewhere) is a `Miss` with the
reason; a stale engine cannot be loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mos_perception.errors import EngineError

FORMAT = 1
Key = dict[str, Any]  # JSON values only: what an engine depends on, see `build.engine_key`


@dataclass(frozen=True)
class Miss:
    """No usable engine, and why."""

    reason: str


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/mos_perception/engines` or below `~/.cache`.

    Raises EngineError without a home.
    """
    base = os.environ.get('XDG_CACHE_HOME', '')
    try:
        root = Path(base) if os.path.isabs(base) else Path.home() / '.cache'
    except RuntimeError as error:
        raise EngineError(
            'no home directory for the engine cache: set XDG_CACHE_HOME to a folder of your own'
        ) from error
    return root / 'mos_perception' / 'engines'


class Cache:
    """A folder of engines that only its owner may enter."""

    def __init__(self, folder: Path | None = None) -> None:
        """None = `default_folder()`. Touches nothing yet."""
        self.folder = default_folder() if folder is None else Path(folder)

    def load(self, model: str, key: Key) -> bytes | Miss:
        """The plan built for exactly `key`.

        Raises EngineError where others may write into the folder.
        """
        if not self.folder.exists():
            return Miss(f'no engine in {self.folder}')
        self._check_folder()
        plan_path, side_path = self._paths(model, key)
        try:
            side = json.loads(side_path.read_text(encoding='utf-8'))
            plan = plan_path.read_bytes()
        except FileNotFoundError:
            return Miss(self._nearest(model, key))
        except (OSError, ValueError, RecursionError) as error:
            return Miss(f'{side_path} cannot be read ({error})')
        if not isinstance(side, dict) or side.get('format') != FORMAT or side.get('key') != key:
            return Miss(f'{side_path} describes another engine')
        if side.get('sha256') != hashlib.sha256(plan).hexdigest():
            return Miss(f'{plan_path} ({len(plan)} bytes) is not the file its side-car describes')
        return plan

    def prepare(self) -> None:
        """Make the folder, 0700, and see that it can be written, before minutes go into a build.

        Raises EngineError.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._check_folder()
            trial = self.folder / f'.trial.{os.getpid()}'
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise EngineError(
                f'engine cache {self.folder} cannot be written ({error}): '
                'make it writable or set XDG_CACHE_HOME to a folder of your own'
            ) from error

    def store(self, model: str, key: Key, plan: bytes) -> Path:
        """Write an engine: plan, then side-car, each by rename. Returns the plan's path.

        Raises EngineError.
        """
        self.prepare()
        plan_path, side_path = self._paths(model, key)
        side = {
            'format': FORMAT,
            'sha256': hashlib.sha256(plan).hexdigest(),
            'bytes': len(plan),
            'key': key,
        }
        try:
            _write(plan_path, plan)
            _write(side_path, (json.dumps(side, indent=2) + '\n').encode())
        except OSError as error:
            raise EngineError(
                f'engine {plan_path} cannot be written ({error}): free some space'
            ) from error
        return plan_path

    def discard(self, model: str, key: Key) -> None:
        """Delete an engine that TensorRT would not take; side-car first, so that half a deletion is
        a miss.
        """
        for path in reversed(self._paths(model, key)):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                return  # a read-only cache: the caller's error names the file

    def path(self, model: str, key: Key) -> Path:
        """Where the plan of `key` lies."""
        return self._paths(model, key)[0]

    def _paths(self, model: str, key: Key) -> tuple[Path, Path]:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f'{model}-{digest}.plan', self.folder / f'{model}-{digest}.json'

    def _nearest(self, model: str, key: Key) -> str:
        """What differs between the wanted engine and the newest other one of this model."""
        sides = []
        for path in self.folder.glob(f'{model}-*.json'):
            try:
                sides.append(
                    (path.stat().st_mtime, json.loads(path.read_text(encoding='utf-8'))['key'])
                )
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                continue
        others = [
            other for _, other in sorted(sides, key=lambda item: item[0]) if isinstance(other, dict)
        ]
        if not others:
            return f'no engine of {model} in {self.folder}'
        differ = [
            f'{name} was {others[-1].get(name)!r}, is {value!r}'
            for name, value in key.items()
            if others[-1].get(name) != value
        ]
        found = '; '.join(differ) or 'half an engine'
        return f'the engine of {model} was built for something else: {found}'

    def _check_folder(self) -> None:
        info, parent = self.folder.lstat(), self.folder.parent.stat()
        private = (
            stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o077
        )
        if not private or parent.st_mode & stat.S_IWOTH:
            raise EngineError(
                f'engine cache {self.folder} has mode {stat.S_IMODE(info.st_mode):04o} and owner '
                f'{info.st_uid}: must be a directory of user {os.geteuid()}, mode 0700, not in a '
                'shared '
                'temporary directory; an engine is code that runs. chmod 700 it or move it'
            )


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, also through a power cut."""
    scratch = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with open(scratch, 'wb') as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
