"""What a model finds moving in a data set, as masks with the protocols' scores."""

import json

import cv2
import numpy as np

from mos_perception.formats.image_files import read_indexed, write_indexed, write_rgb
from training.evaluate import main


def make_set(root):
    """A textured square that moves before a still ground, as one video of GMOS-2K."""
    rng = np.random.default_rng(0)
    ground, square = (cv2.GaussianBlur(rng.integers(0, 256, (*size, 3)).astype(np.uint8), (0, 0), 2)
                      for size in ((120, 160), (40, 44)))
    for n in range(14):
        picture, ids = ground.copy(), np.zeros((120, 160), np.uint8)
        picture[40:80, 10 + 5 * n:54 + 5 * n] = square
        ids[40:80, 10 + 5 * n:54 + 5 * n] = 1
        write_rgb(root / 'images/own/square' / f'{n:05d}.png', picture)
        write_indexed(root / 'annotations/own/test/square' / f'{n:05d}.png', ids)
    (root / 'time_annotation.csv').write_text(
        'seq_name,time_anno,ann_frames,vid_frames,dataset,split\n'
        'square,"{\'1\': [[0, 13]]}",14,14,own,test\n')


def test_masks_are_written_and_scored(tmp_path, capsys):
    make_set(tmp_path / 'set')
    command = ['--model', 'gmos_nano', '--data', str(tmp_path / 'set'), '--frames-only', '--masks',
               str(tmp_path / 'out'), '--threads', '1']
    assert main([*command, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    masks = [read_indexed(tmp_path / 'out/square' / f'{n:05d}.png') for n in range(14)]
    assert found['sequences'] == 1 and any(mask.any() for mask in masks)
    assert found['grouped']['J_mean'] > 0.4 and found['mos_i']['sequence']['parity']['J_mov'] > 0.3
    assert main(command) == 1 and 'exists' in capsys.readouterr().err
    assert main(['--model', 'gmos_nano', '--masks', str(tmp_path / 'x')]) == 1
