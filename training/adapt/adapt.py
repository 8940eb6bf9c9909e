"""From unlabelled recordings to a model: watch, mine, learn, judge, write. All of `mos adapt`.

    bags -> the robot's pipeline with the watched model -> answers and samples    (watch, gather)
    answers -> labels; what of the recordings can teach                           (mine, survey)
    samples and labels of the first part of each recording -> new weights         (learner, tune)
    the new model on the last part of each, against what it began as              (judge)
    no worse: OUT.onnx and its card; in any case OUT.report/                      (report)
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from mos_perception.config import Config
from mos_perception.datatypes import Instances, Result, SyncedInput
from mos_perception.engine.card import ModelCard, load_card, save_card, sha256_of
from mos_perception.engine.model_files import find_model
from mos_perception.errors import BagError, ConfigError, DatasetError, EngineError
from mos_perception.models import model_name
from mos_perception.models.mosis import find_movable
from mos_perception.recording.bag import Bag, open_bag
from mos_perception.replay import Step, with_topics
from mos_perception.reports.overlay_video import draw, write_overlays
from mos_perception.reports.visualize import tinted
from training.adapt import judge, report
from training.adapt.gather import Answers, Gatherer, at_image_size, ids_of, shard_file, write_labels
from training.adapt.learner import Learner
from training.adapt.mine import Mined, Steps, mine
from training.adapt.survey import LEAST_S, Survey, require, survey, usable
from training.adapt.tune import BATCH
from training.adapt.watch import shown, watched
from training.adapt.work import Work, fingerprint
from training.export_video import write_member
from training.video_batches import Batches

WARM_NS = 1_000_000_000   # of a recording before its held-out part: what the model remembers there
PICTURES = 6
SAVE_EVERY = 25           # steps

_Picture = tuple[int, np.ndarray, np.ndarray]  # row, frame (H, W, 3), masks (N, H, W)


@dataclass(frozen=True)
class Settings:
    """How much is watched and learned."""

    steps: int = 60
    """Of fine-tuning."""
    batch: int = BATCH
    """Samples of a step."""
    hold_out: float = 0.25
    """Share of each recording, its end, that nothing is learned from."""
    most_samples: int = 400
    """To learn from, over all recordings."""
    most_s: float = 120.0
    """s of video to watch, over all recordings."""
    least_s: float = LEAST_S
    """s of usable video: with less nothing is learned."""


@dataclass
class Recording:
    """One bag: its configuration, its answers and, of both of its parts, the flow and labels."""

    path: Path
    stem: str
    config: Config
    answers: Answers
    fault: str = ''
    split: int = 0
    kinds: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    mined: Mined | None = None
    held_steps: Steps | None = None

    @property
    def held(self) -> slice:
        """The rows that nothing is learned from."""
        return slice(self.split, len(self.answers))


@dataclass(frozen=True)
class Outcome:
    """What came of it: files written, `before` and `after` on the frames held out."""

    files: list[Path]
    before: judge.Scores
    after: judge.Scores
    seconds: float


def adapt(bags: Sequence[Path], out: Path, config: Config, settings: Settings = Settings(),
          image_topic: str | None = None, events_topic: str | None = None,
          progress: Progress | None = None) -> Outcome:
    """Write the model `out` (.onnx), its card and its report, learned from `bags`.

    The model of `config` is watched and learns; where it names a `movable_model` that one learns.
    Stopped, the same call goes on. Raises MosError where nothing can be learned or the new model is
    worse: no model is written then.
    """
    begun = time.monotonic()
    progress = progress or Progress(disable=True)
    configs = [_configured(path, config, image_topic, events_topic) for path in bags]
    start, card = _start(configs)
    learner = _learner(config, start, card)
    _check_out(out)
    work = Work(out, {'start': card.sha256, 'learner': learner.card.sha256,
                      'settings': dataclasses.asdict(settings),
                      'configs': [dataclasses.asdict(one) for one in configs],
                      'bags': [fingerprint(path) for path in bags]},
                settings.most_samples * _sample_bytes(learner))
    recordings = [_watch(number, path, one, learner, work, settings, len(bags), progress)
                  for number, (path, one) in enumerate(zip(bags, configs, strict=True))]
    surveys = [_mine(one, card, settings) for one in recordings]
    try:
        require(surveys, settings.least_s)
    except DatasetError:
        work.remove()
        raise
    for one in recordings:
        write_labels(work.samples, one.stem, one.answers.sampled, learner.labels(
            one.mined.labels[:one.split], one.answers.ids[:one.split]))
    steps = _learn(learner, work, settings, progress)
    made = work.folder / out.name
    learned = {'steps': steps, 'hold_out': settings.hold_out, 'watched': card.id,
               'start': learner.card.id, 'start_sha256': learner.card.sha256,
               'recordings': [found.as_dict() for found in surveys],
               'command': 'mos adapt', 'start_training': learner.card.training}
    try:
        _export(learner, work, made, out.stem, learned)
    except EngineError:  # numbers beyond all bounds: to go on would end here again
        work.remove()
        raise
    return _judge(recordings, surveys, learner, made, out, work, learned, begun, progress)


def _configured(path: Path, config: Config, image_topic: str | None,
                events_topic: str | None) -> Config:
    """As the node would be run on the bag. Raises BagError where it has no frames."""
    with open_bag(path) as bag:
        found = with_topics(bag, config, image_topic, events_topic)
        if not found.image_topic:
            raise BagError(f'{path} has no frames to learn from: record the camera too; its '
                           f'topics: {bag.listing()}')
    alone = {'events_topic': ''} if config.movable_model else {}
    return dataclasses.replace(found, causal=False, movable_model='',
                               model=model_name(dataclasses.replace(found, **alone)), **alone)


def _start(configs: Sequence[Config]) -> tuple[Path, ModelCard]:
    """The model to begin with. Raises ConfigError where recordings ask for several."""
    names = sorted({model_name(config) for config in configs})
    if len(names) > 1:
        raise ConfigError(f'some recordings have events and some have none, and suit {names}: '
                          'name one with --model, or adapt to each kind alone')
    path = find_model(names[0])
    card = load_card(path)
    if card.architecture != 'gmos' or card.evidence is None:
        raise EngineError(f'model {card.id} is a {card.architecture}: only the light members that '
                          'look at motion evidence can be watched; use gmos_nano, gmos_s_nano, '
                          'dimos_light or one made of them')
    return path, card


def _learner(config: Config, start: Path, card: ModelCard) -> Learner:
    if not config.movable_model:
        return Learner.of(start, card, card)
    return Learner.of(*find_movable(config.movable_model), card)


def _check_out(out: Path) -> None:
    if out.suffix != '.onnx':
        raise ConfigError(f'--out {out}: must end in .onnx')
    for path in (out, out.with_suffix('.json')):
        if path.exists():
            raise ConfigError(f'{path} exists: remove it or name another --out')
    out.parent.mkdir(parents=True, exist_ok=True)


def _sample_bytes(learner: Learner) -> int:
    """Of one sample on disk: a byte for each number of the inputs, and the label."""
    return (sum(int(np.prod(spec.shape)) for spec in learner.card.inputs)
            + int(np.prod(learner.evidence.size)))


def _watch(number: int, path: Path, config: Config, learner: Learner, work: Work,
           settings: Settings, bags: int, progress: Progress) -> Recording:
    """The watched model's answers on one bag, read back where they are there."""
    stem = f'bag{number:02}'
    file, told = work.folder / f'{stem}.npz', work.folder / f'{stem}.fault'
    if not file.exists():
        for half_done in work.samples.glob(f'{stem}-*'):
            half_done.unlink()
        with open_bag(path) as bag:
            count = _frames(bag, config.image_topic, round(settings.most_s * 1e9 / bags))
            task = progress.add_task(f'watch {path.name}', total=count)
            until = round((1 - settings.hold_out) * count)
            stride = max(1, -(-until * bags // settings.most_samples))
            taken = Gatherer(work.samples, stem, stride, until, learner.parts)
            for _ in watched(bag, config, taken.keep):
                progress.update(task, completed=len(taken))
                if len(taken) >= count:
                    break
            told.write_text(bag.fault, encoding='utf-8')
        taken.answers().save(file)
        progress.update(task, completed=count)
    return Recording(path, stem, config, Answers.load(file), told.read_text(encoding='utf-8'))


def _frames(bag: Bag, topic: str, most_ns: int) -> int:
    """How many frames a bag holds in its first `most_ns`; none is decoded."""
    times = [message.receive_ns for message in bag.messages([topic])]
    return sum(at - times[0] <= most_ns for at in times)


def _mine(one: Recording, card: ModelCard, settings: Settings) -> Survey:
    """Labels of both parts of a recording, each from its own answers; what they are worth."""
    answers = one.answers
    one.split = round((1 - settings.hold_out) * len(answers))
    one.kinds = usable(answers.clipped, answers.missing_gaps, answers.off,
                       len(card.evidence.signed_gaps_ms))
    parts = []
    for rows in (slice(0, one.split), one.held):
        part = answers.rows(rows)
        if len(part):
            steps = Steps(part.greys, part.stamps_ns)
            parts.append(mine(part.logits.astype(np.float32), part.supports.astype(np.float32),
                              steps, part.stamps_ns, one.kinds['all'][rows]))
            one.held_steps = steps
    if not parts:
        raise DatasetError(f'{one.path}: no frame got an answer; look at it with "mos replay"')
    one.mined = Mined(*(np.concatenate([getattr(part, name) for part in parts])
                        for name in ('labels', 'votes', 'support')))
    return survey(one.path.name, answers.stamps_ns, one.kinds, one.mined, one.fault)


def _learn(learner: Learner, work: Work, settings: Settings, progress: Progress) -> int:
    """Fine-tune to the end; returns the steps."""
    run = learner.adaptation(work.run)
    batches = Batches([work.samples], np.random.default_rng(run.steps))
    task = progress.add_task('learn', total=settings.steps, completed=run.steps)
    while run.steps < settings.steps:
        terms = run.step(batches.take(settings.batch), run.steps / settings.steps)
        if not np.isfinite(terms['foreground']):
            work.remove()
            raise EngineError(f'No model was written: the loss is {terms["foreground"]} at step '
                              f'{run.steps}; give fewer --steps')
        progress.update(task, completed=run.steps,
                        description=f'learn, loss {terms["foreground"]:.3f}')
        if run.steps % SAVE_EVERY == 0:
            run.save()
    run.save()
    return run.steps


def _export(learner: Learner, work: Work, path: Path, name: str, learned: dict[str, Any]) -> None:
    """The model and its card, which says where it comes from."""
    start = learner.card
    network = learner.adaptation(work.run).average.eval()
    differences = write_member(network, path, learner.evidence)
    save_card(dataclasses.replace(
        start, id=name, file=path.name, sha256=sha256_of(path), scores={},
        training=learned | {'onnx_difference': differences},
        licence=f'{start.licence}; adapted to recordings of its user, who answers for them',
    ), path)


def _judge(recordings: Sequence[Recording], surveys: list[Survey], learner: Learner, made: Path,
           out: Path, work: Work, learned: dict[str, Any], begun: float,
           progress: Progress) -> Outcome:
    """Both models on what was held out; the model goes to `out` unless it is worse."""
    folder = out.with_suffix('.report')
    folder.mkdir(parents=True, exist_ok=True)
    before, after, pairs, files = [], [], [], []
    for one in recordings:
        labels, old_ids = one.mined.labels[one.held], one.answers.ids[one.held]
        if learner.of_pictures:
            old_ids, _, _ = _answer_again(one, learner.path, None, progress)
        before.append(judge.judge(old_ids, labels, one.held_steps))
        shown = folder if len(recordings) == 1 else folder / one.stem
        ids, pictures, written = _answer_again(one, made, shown, progress)
        after.append(judge.judge(ids, labels, one.held_steps))
        pairs += [np.hstack([tinted(picture, at_image_size(old_ids[row], picture.shape[:2])),
                             tinted(picture, masks)]) for row, picture, masks in pictures]
        files += written
    old, new = judge.together(before), judge.together(after)
    worse = judge.complaints(old, new, learner.of_pictures)
    seconds = time.monotonic() - begun
    verdict = (f'No model was written: {"; ".join(worse)}.' if worse
               else f'{out.name} was written: no worse on what was held out.')
    told = {'start model': learned['start'], 'steps': learned['steps'],
            'seconds, this time': round(seconds)}
    shown = {'What was learned: green moves, grey teaches nothing': _examples(work, recordings),
             'Held out: before on the left, after on the right': pairs}
    report.write_page(folder / 'index.html', report.page(out.stem, verdict, surveys, old, new,
                                                         shown, told))
    if worse:
        work.remove()
        raise EngineError(f'{verdict} See {folder / "index.html"}; record more of what moves, or '
                          'keep the start model')
    card = load_card(made)
    save_card(dataclasses.replace(card, scores={'held out, by itself': {
        'before': old.as_dict(), 'after': new.as_dict()}}), made)
    made.replace(out)
    made.with_suffix('.json').replace(out.with_suffix('.json'))
    work.remove()
    return Outcome([out, out.with_suffix('.json'), folder / 'index.html', *files], old, new,
                   seconds)


def _answer_again(one: Recording, made: Path, folder: Path | None,
                  progress: Progress) -> tuple[np.ndarray, list[_Picture], list[Path]]:
    """A model on the held-out part: ids (T, h, w), some frames, and overlays in `folder`."""
    stamps = one.answers.stamps_ns[one.held]
    row_of = {int(stamp): row for row, stamp in enumerate(stamps)}
    ids, chosen = np.zeros_like(one.answers.ids[one.held]), []
    wanted = set(np.linspace(0, len(stamps) - 1, PICTURES).round().astype(int).tolist())
    task = progress.add_task(f'check {one.path.name}', total=len(stamps))

    def keep(sample: SyncedInput, found: Instances) -> None:
        row = row_of.get(sample.stamp_ns)
        if row is None:
            return
        progress.advance(task)
        ids[row] = ids_of(found, ids.shape[1:])
        if row in wanted:
            chosen.append((row, sample.frame.image, found.masks))

    with open_bag(one.path) as bag:
        config = dataclasses.replace(one.config, model=str(made))
        first = int(stamps[0]) - WARM_NS if len(stamps) else 0
        steps = shown(bag, config, keep, first)

        def results() -> Iterator[Step]:
            for step in steps:
                if isinstance(step.outcome, Result) and step.outcome.stamp_ns in row_of:
                    yield step
                if len(stamps) and step.outcome.stamp_ns >= stamps[-1]:
                    return

        if folder is None:
            deque(results(), maxlen=0)
            return ids, chosen, []
        files = write_overlays(folder, (
            draw(step.outcome, step.sample.frame, step.sample.window, int(stamps[0]))
            for step in results()))
    return ids, chosen, files


def _examples(work: Work, recordings: Sequence[Recording]) -> list[np.ndarray]:
    """Pictures of labels, spread over all samples."""
    shards = [(one.stem, number) for one in recordings for number in range(1000)
              if shard_file(work.samples, one.stem, number, 'label').exists()]
    found = []
    for index in np.linspace(0, len(shards) - 1e-6, PICTURES, endpoint=False):
        stem, number = shards[int(index)]
        images, labels = (np.load(shard_file(work.samples, stem, number, part), mmap_mode='r')
                          for part in ('image', 'label'))
        row = int((index - int(index)) * len(images))
        found.append(report.labelled(np.asarray(images[row]), np.asarray(labels[row])))
    return found
