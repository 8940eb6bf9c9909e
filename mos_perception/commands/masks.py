"""`mos evaluate MASKS --ground-truth DATA_SET`: predicted masks by the protocols of video sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mos_perception.errors import DatasetError
from mos_perception.evaluation.mask_folders import FolderEvaluator
from mos_perception.formats import detect, module
from mos_perception.reports.protocol_tables import protocol_tables


def is_data_set(path: Path) -> bool:
    """Whether a data set other than a bag lies there."""
    try:
        return detect(path) != 'bag'
    except DatasetError:
        return False


def evaluate_masks(results: Path, data_set: Path, names: Sequence[str] = (),
                   json_path: Path | None = None) -> None:
    """Score the folder `results` against all sequences of a data set, or those of `names`.

    A name may be the last part of a sequence's. Raises MosError.
    """
    form = detect(data_set)
    reader = module(form)
    found = reader.find(data_set)
    unknown = [name for name in names
               if not any(name in (other, other.split('/')[-1]) for other in found)]
    if unknown:
        raise DatasetError(f'{data_set} has no sequence {", ".join(unknown)}: it has '
                           f'{", ".join(found[:20])}{" ..." if len(found) > 20 else ""}')
    chosen = [name for name in found
              if not names or name in names or name.split('/')[-1] in names]
    if not results.is_dir():
        raise DatasetError(f'{results} is no folder: give the one that holds SEQUENCE/00000.png')
    evaluator = FolderEvaluator(results)
    for name in chosen:
        evaluator.add(reader.read(data_set, name))
    summary = {'results': str(results), 'ground_truth': str(data_set), 'form': form,
               'names': chosen, 'score': evaluator.summary()}
    console = Console()
    console.print(f'{form}: {len(chosen)} sequences: {", ".join(chosen)}', highlight=False)
    for table in protocol_tables(summary['score']):
        console.print(table)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(summary, indent=1) + '\n')
