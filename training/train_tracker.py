"""Train the referring tracker on cached queries: `python -m training.train_tracker --data FOLDER...
--run FOLDER --minutes 20`, or `--steps`.

The segmenter is frozen: what it found was cached by `training.tracker_cache`. Started again with
the same folder a run goes on; batches depend on (seed, step) alone, so that with `--steps` it does
so as if never stopped.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.nets.instance_tracker import InstanceTracker
from training.timed_run import TimedRun, run_parser
from training.tracker_batches import IGNORED, NOISES, Batch, Curriculum, batch
from training.tracker_cache import load_folder


def unroll(network: InstanceTracker, given: Batch) -> Tensor:
    """Logits (T, blocks, B, S, N + 1) of a batch, slots carried from frame to frame."""
    found, empty_at_all = [], given.empty.all(-1)
    reference = given.frame.new_zeros(*given.initial[:, 0].shape[:2], network.config.width)
    for at in range(given.frame.shape[1]):
        padding, empty = given.padding[:, at].clone(), given.empty[:, at].clone()
        padding[:, 0] = False  # attention to nothing is not a number
        empty[empty_at_all[:, at], 0] = False
        queries, slots, logits = network(given.frame[:, at], given.initial[:, at], reference,
                                         given.place[:, at], given.pairs[:, at], padding, empty)
        found.append(logits)
        born = given.born[:, at, :, None].expand_as(reference)
        reference = torch.where(born >= 0, queries.gather(1, born.clamp(min=0)), slots[-1])
    return torch.stack(found)


def tracker_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of (T, blocks, B, S, N + 1) to `target` (B, T, S), mean over blocks and slots
    that have one.
    """
    wanted = target.transpose(0, 1)[:, None].expand(logits.shape[:-1])
    if not (wanted != IGNORED).any():
        return logits.new_zeros(())
    return F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=IGNORED)


def right(logits: Tensor, target: Tensor) -> float:
    """Share of the slots whose largest logit of the last block is their target."""
    known = (target != IGNORED).transpose(0, 1)
    hits = logits[:, -1].argmax(-1) == target.transpose(0, 1)
    return float(hits[known].float().mean()) if known.any() else float('nan')


class Run(TimedRun):
    """A run for embeddings of `made_for` channels."""

    kind, key, print_every = 'tracker', 'channels', 50
    mismatch = 'for embeddings of {} channels, the data has {}: give another --run'

    def make(self) -> InstanceTracker:
        """A new network."""
        return InstanceTracker(self.made_for)

    def judge(self, given: Batch) -> tuple[Tensor, float]:
        """See `TimedRun.judge`."""
        logits = unroll(self.network, given)
        return tracker_loss(logits, given.target), right(logits.detach(), given.target)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = run_parser('Train the referring tracker on cached queries.', batch=16)
    parser.add_argument('--noise', choices=NOISES, default=Curriculum().noise)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    data = load_folder(given.data)
    run = Run(given.run, data[0].frames[0].embeddings.shape[1], Curriculum(noise=given.noise),
              given.learning_rate, given.seed)
    print(f'{len(data)} sequences, {sum(len(one.frames) for one in data)} frames')
    run.train(lambda rng: batch(data, run.augmentation, rng, given.batch), given.steps,
              given.minutes)


if __name__ == '__main__':
    main()
