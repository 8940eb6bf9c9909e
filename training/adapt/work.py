"""The folder of an adaptation that is under way: what it is of, and what is done already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mos_perception.errors import ConfigError, DatasetError

SPARE_BYTES = 500_000_000  # beside the samples: answers, network, optimizer, pictures


class Work:
    """`OUT.work`, beside the model to be."""

    def __init__(self, out: Path, plan: dict[str, Any], sample_bytes: int) -> None:
        """Begin, or go on where `plan` is the one that was begun with.

        Raises ConfigError for another one, DatasetError where the disk has too little room for
        samples of `sample_bytes` in all.
        """
        self.folder = out.with_suffix('.work')
        file = self.folder / 'plan.json'
        if self.folder.exists():
            known = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else None
            if known is not None and known != json.loads(json.dumps(plan)):
                raise ConfigError(f'{self.folder} was begun with other recordings, start model or '
                                  'options: give those again, remove it, or name another --out')
        else:
            free = shutil.disk_usage(_existing(out.parent)).free
            wanted = sample_bytes + SPARE_BYTES
            if free < wanted:
                raise DatasetError(f'{out.parent} has {free / 1e6:.0f} MB free: must be >= '
                                   f'{wanted / 1e6:.0f} MB while it learns; free space or name '
                                   'another --out')
        self.samples.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(plan, indent=1), encoding='utf-8')

    @property
    def samples(self) -> Path:
        """Shards for `Batches`."""
        return self.folder / 'samples'

    @property
    def run(self) -> Path:
        """Of the fine-tuning."""
        return self.folder / 'run'

    def remove(self) -> None:
        """It is not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def fingerprint(path: Path) -> list[Any]:
    """Names, sizes and times of change of a recording's files."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [str(path.resolve()), *([file.name, file.stat().st_size, file.stat().st_mtime_ns]
                                   for file in files if file.is_file())]


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
