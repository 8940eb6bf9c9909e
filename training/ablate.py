"""What each part of DIMOS brings: the paper's ladder, equal budgets, several seeds, one table.

`python -m training.ablate --data runs/set --out runs/ablation --steps 20000 --seeds 3 --clips 20` trains every rung for
every seed (going on where it was stopped), scores it on held-out clips and writes ablation.json and ablation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from bench.document import table
from mos_perception.engine.card import load_card
from mos_perception.engine.ort import OrtEngine
from mos_perception.errors import ConfigError, MosError
from mos_perception.evaluation.score import Scorer
from mos_perception.models.dimos import DimosModel
from training.datasets.clips import PackedSet
from training.evaluate import Row, methods, score_clip
from training.export import export
from training.losses.alignment import AlignmentWeights
from training.recipes import RECIPES, Recipe
from training.scenes import SCENES, Clip, render_clip
from training.train import fit, load, start

PAPER = {'baseline': 60.47, '+ flow': 62.54, 'EvInsMOS': 62.54, '+ box': 63.46, '+ dual disentanglement': 68.11,
         '+ translation': 69.23, '+ adversarial': 70.25}  # mIoU_ins on MouseSIS, dimos.md 5
COLUMNS = ('mIoU_ins', 'mIoU_strict', 'mIoU01', 'AP_parity')


def ladder(recipe: Recipe) -> dict[str, Recipe]:
    """The paper's six rungs, each the one before and a part more, and EvInsMOS; `recipe` is the last rung.

    EvInsMOS is "+ flow" and its own contrast between frames, apart from the ladder. Every rung sees as many images a
    step: a pair counts as two. No modality is dropped: that is our addition, and would hide what the rest does.
    """
    recipe = replace(recipe, augment=replace(recipe.augment, drop_image=0.0, drop_events=0.0))
    every, weights = recipe.alignment, recipe.weights
    one_frame = {'frames': 1, 'batch': recipe.batch * recipe.frames}
    base = replace(recipe, net=replace(recipe.net, disentangled=False), weights=replace(weights, flow=0.0, box=0.0),
                   alignment=AlignmentWeights(), **one_frame)
    flow = replace(base, weights=replace(weights, box=0.0))
    box = replace(base, weights=weights)
    apart = replace(recipe, alignment=replace(every, translation=0.0, adversarial=0.0))
    evinsmos = replace(recipe, net=base.net, weights=flow.weights, alignment=AlignmentWeights(contrast=every.contrast))
    rungs = {'baseline': base, '+ flow': flow, 'EvInsMOS': evinsmos, '+ box': box, '+ dual disentanglement': apart,
             '+ translation': replace(recipe, alignment=replace(every, adversarial=0.0)), '+ adversarial': recipe}
    return {name: replace(rung, name=f'{recipe.name} {name}') for name, rung in rungs.items()}


def claim(folder: Path, wanted: dict) -> None:
    """Note what the folder's run is for. Raises ConfigError if it was begun for something else."""
    note, text = folder / 'run.json', json.dumps(wanted, indent=1)
    if note.exists() and note.read_text() != text:
        raise ConfigError(f'{folder} holds a run with other steps, data, clips or recipe (run.json): '
                          'give another --out, or delete it')
    part = note.with_suffix('.part')
    part.write_text(text)
    os.replace(part, note)


def run(recipe: Recipe, data: Path, folder: Path, steps: int, clips: list[Clip]) -> dict[str, float | None]:
    """Train (or go on with) one recipe to `steps` and score it on the clips."""
    scores = folder / 'scores.json'
    folder.mkdir(parents=True, exist_ok=True)
    names = [(clip.preset, clip.seed) for clip in clips]
    claim(folder, {'steps': steps, 'data': data.name, 'clips': names, 'recipe': asdict(recipe)})
    if scores.exists():
        return json.loads(scores.read_text())
    with PackedSet(data, recipe) as samples:
        state = load(folder, recipe) if (folder / 'checkpoint.json').exists() else start(recipe)
        fit(state, samples, recipe, folder, steps=steps, save_minutes=2, command='training.ablate')
    export(folder, recipe, folder / 'model.onnx')
    model = DimosModel(OrtEngine(folder / 'model.onnx', 1), load_card(folder / 'model.onnx'))
    row = Row(Scorer(recipe.min_pixels))
    for clip in clips:
        score_clip(row, methods(model)['frames + events'], clip, recipe.window_ns)
    part = scores.with_suffix('.part')
    part.write_text(json.dumps(row.values()))
    os.replace(part, scores)
    return row.values()


def as_markdown(results: dict[str, list[dict[str, float | None]]], about: str) -> str:
    """Mean and spread (standard deviation over the seeds) per rung, beside the paper's ladder."""
    rows = []
    for name, runs in results.items():
        values = np.array([[100 * (scores[column] or 0.0) for column in COLUMNS] for scores in runs])
        cells = [f'{mean:.1f} +- {spread:.1f}' for mean, spread in zip(values.mean(0), values.std(0))]
        rows.append([name, *cells, str(len(runs)), f'{PAPER[name]:.2f}'])
    head = ['part', *COLUMNS, 'seeds', 'paper: mIoU_ins on MouseSIS']
    return f'# Ablation\n\n{about}\n\n' + table(head, rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Train and score the ladder of DIMOS parts.')
    parser.add_argument('--recipe', choices=sorted(RECIPES), default='dimos_nano_full')
    parser.add_argument('--data', type=Path, required=True, help='packed set (training.datasets.clips)')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--steps', type=int, required=True)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--preset', choices=SCENES, default='mid')
    parser.add_argument('--clips', type=int, default=20)
    parser.add_argument('--threads', type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    clips = [render_clip(given.preset, seed, 'test') for seed in range(given.clips)]
    results: dict[str, list[dict[str, float | None]]] = {}
    rungs = ladder(RECIPES[given.recipe])
    try:
        for number in range(given.seeds):  # seed by seed: a run that is stopped early still compares all rungs
            for name, recipe in rungs.items():
                folder = given.out / f'{name.strip("+ ").replace(" ", "_")}_{number}'
                print(f'{name}, seed {number + 1} of {given.seeds}', flush=True)
                seeded = replace(recipe, seed=recipe.seed + number)
                results.setdefault(name, []).append(run(seeded, given.data, folder, given.steps, clips))
    except MosError as error:
        print(f'ablate: {error}', file=sys.stderr)
        return 1
    about = (f'{given.steps} steps of {given.recipe} each, {given.seeds} seeds, trained on {given.data.name}, scored '
             f'on {given.clips} {given.preset} clips of split test; rendered scenes only. In %.')
    (given.out / 'ablation.json').write_text(json.dumps({'about': about, 'results': results}, indent=1))
    (given.out / 'ablation.md').write_text(as_markdown(results, about))
    print(as_markdown(results, about))
    return 0


if __name__ == '__main__':
    sys.exit(main())
