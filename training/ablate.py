"""What each part of DIMOS brings: the paper's ladder, equal budgets, several seeds, one table.

`python -m training.ablate --data runs/set --out runs/ablation --steps 20000 --seeds 3 --clips 20` trains every rung for
every seed (going on where it was stopped), scores it on held-out clips and writes ablation.json and ablation.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
from mos_perception.models.dimos.model import DimosModel
from training.datasets.clips import PackedSet
from training.evaluate import MethodScores, methods, score_clip
from training.export import export
from training.losses.alignment import AlignmentWeights
from training.recipes import RECIPES, Recipe
from training.scenes import SCENES, Clip, render_clip
from training.state import load, start
from training.train import fit

PAPER = {'baseline': 60.47, '+ flow': 62.54, 'EvInsMOS': 62.54, '+ box': 63.46, '+ dual disentanglement': 68.11,
         '+ translation': 69.23, '+ adversarial': 70.25}  # mIoU_ins on MouseSIS, dimos.md 5
COLUMNS = ('mIoU_ins', 'mIoU_strict', 'mIoU01', 'AP_released')


def ladder(recipe: Recipe) -> dict[str, Recipe]:
    """The paper's six rungs, each the one before and a part more, and three others; `recipe` is the last rung.

    Apart from the ladder: EvInsMOS is "+ flow" and its own contrast between frames; "+ box, in pairs" tells what half
    as many different scenes in a batch cost, which every contrast pays; "projected fusion" is the last rung with both
    modalities projected to the first scale's channels before they are fused.

    Every rung sees as many images a step: a pair counts as two. No modality is dropped: that is our addition, and would
    hide what the rest does.
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
             '+ translation': replace(recipe, alignment=replace(every, adversarial=0.0)), '+ adversarial': recipe,
             '+ box, in pairs': replace(recipe, net=base.net, alignment=AlignmentWeights()),
             'projected fusion': replace(recipe, net=replace(recipe.net, fusion_width=recipe.net.channels[0]))}
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


def train(recipe: Recipe, data: Path, folder: Path, steps: int) -> DimosModel:
    """Train (or go on with) one recipe to `steps` and export it; nothing is done twice."""
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, {'steps': steps, 'data': data.name, 'recipe': asdict(recipe)})
    path = folder / 'model.onnx'
    if not path.exists():
        with PackedSet(data, recipe) as samples:
            state = load(folder, recipe) if (folder / 'checkpoint.json').exists() else start(recipe)
            fit(state, samples, recipe, folder, steps=steps, save_minutes=2, command='training.ablate')
        export(folder, recipe, path)
    return DimosModel(OrtEngine(path, 1), load_card(path))


def score(model: DimosModel, recipe: Recipe, clips: list[Clip], scores: Path) -> dict[str, float | None]:
    """The scores on the clips with frames and events, from the file `scores` if they are there."""
    if scores.exists():
        return json.loads(scores.read_text())
    row = MethodScores(Scorer(recipe.min_pixels))
    for clip in clips:
        score_clip(row, methods(model)['frames + events'], clip, recipe.window_ns)
    part = scores.with_suffix('.part')
    part.write_text(json.dumps(row.values()))
    os.replace(part, scores)
    return row.values()


def as_markdown(results: dict[str, dict[str, list[dict[str, float | None]]]], about: str) -> str:
    """Per preset: mean and spread (standard deviation over the seeds) per rung, beside the paper's ladder."""
    parts = [f'# Ablation\n\nMade by `python -m training.ablate`; do not edit.\n\n{about}\n']
    for preset, rungs in results.items():
        rows = []
        for name, runs in rungs.items():
            values = np.array([[100 * (scores[column] or 0.0) for column in COLUMNS] for scores in runs])
            cells = [f'{mean:.1f} +- {spread:.1f}' for mean, spread in zip(values.mean(0), values.std(0))]
            rows.append([name, *cells, str(len(runs)), f'{PAPER[name]:.2f}' if name in PAPER else '-'])
        head = ['part', *COLUMNS, 'seeds', 'paper: mIoU_ins on MouseSIS']
        parts.append(f'## {preset}\n\n' + table(head, rows))
    return '\n'.join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description='Train and score the ladder of DIMOS parts.')
    parser.add_argument('--recipe', choices=sorted(RECIPES), default='dimos_nano_full')
    parser.add_argument('--data', type=Path, required=True, help='packed set (training.datasets.clips)')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--steps', type=int, required=True)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--presets', choices=SCENES, nargs='+', default=['mid', 'easy'])
    parser.add_argument('--clips', type=int, default=20)
    parser.add_argument('--threads', type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    clips = {preset: [render_clip(preset, seed, 'test') for seed in range(given.clips)] for preset in given.presets}
    results: dict[str, dict[str, list[dict[str, float | None]]]] = {preset: {} for preset in clips}
    rungs = ladder(RECIPES[given.recipe])
    try:
        for number in range(given.seeds):  # seed by seed: a run that is stopped early still compares all rungs
            for name, recipe in rungs.items():
                folder = given.out / f'{"_".join(re.findall("[A-Za-z]+", name))}_{number}'
                print(f'{name}, seed {number + 1} of {given.seeds}', flush=True)
                recipe = replace(recipe, seed=recipe.seed + number)
                model = train(recipe, given.data, folder, given.steps)
                for preset, scenes in clips.items():
                    found = score(model, recipe, scenes, folder / f'scores_{preset}_{given.clips}.json')
                    results[preset].setdefault(name, []).append(found)
    except MosError as error:
        print(f'ablate: {error}', file=sys.stderr)
        return 1
    about = (f'{given.steps} steps of {given.recipe} each, {given.seeds} seeds, trained on {given.data.name}, scored '
             f'on {given.clips} clips of each preset, split test; rendered scenes only. In %.')
    (given.out / 'ablation.json').write_text(json.dumps({'about': about, 'results': results}, indent=1))
    (given.out / 'ablation.md').write_text(as_markdown(results, about))
    print(as_markdown(results, about))
    return 0


if __name__ == '__main__':
    sys.exit(main())
