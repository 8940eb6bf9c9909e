"""Video data sets with their conventions, by hand, and folders of masks scored against them."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.cli import main
from mos_perception.errors import DatasetError
from mos_perception.evaluation.boxes import BoxScores, box_iou, largest_box
from mos_perception.formats import detect, module
from mos_perception.formats.gmos2k import parse_intervals
from mos_perception.formats.image_files import write_indexed, write_rgb

SIZE = (20, 30)


def ids_of(n):
    """Two squares, the first moves right."""
    ids = np.zeros(SIZE, np.uint8)
    ids[3:9, 2 + n:8 + n], ids[12:18, 20:27] = 1, 2
    return ids


def picture(n):
    return np.full((*SIZE, 3), 10 * n, np.uint8)


@pytest.fixture
def gmos2k(tmp_path):
    """blackswan: object 1 moves in frames 0-1 and 3, 2 in 2 to beyond the end; cup: nothing."""
    root = tmp_path / 'gmos2k'
    for n in range(4):
        write_indexed(root / 'annotations/davis/test/blackswan' / f'{5 * n:05d}.png', ids_of(n))
        write_indexed(root / 'annotations/davis/test/cup' / f'{n:05d}.png', np.zeros(SIZE))
    for n in range(20):
        write_rgb(root / 'images/davis/blackswan' / f'{n:05d}.png', picture(n))
    (root / 'time_annotation.csv').write_text(
        'seq_name,time_anno,ann_frames,vid_frames,dataset,split\n'
        'blackswan,"{\'1\': [[0, 1], [3, 3]], \'2\': [[2, 9]]}",4,20,davis,test\n'
        'cup,{},4,4,davis,test\nlost,"{\'1\': [[0, 3]]}",4,4,ytvos,train\n')
    return root


def test_gmos2k_by_hand(gmos2k):
    assert detect(gmos2k) == 'gmos2k'
    assert module('gmos2k').find(gmos2k) == ['davis/test/blackswan', 'davis/test/cup']
    found = module('gmos2k').read(gmos2k)
    assert found.moving == ({1: True, 2: False}, {1: True, 2: False}, {1: False, 2: True},
                            {1: True, 2: True})
    assert [int(image[0, 0, 0]) for image in found.frames] == [0, 50, 100, 150]
    assert np.diff(found.stamps_ns).tolist() == [208333333, 208333334, 208333333]
    assert np.array_equal(found.ids[2], ids_of(2)) and 'cut' in found.notes[0]
    assert module('gmos2k').read(gmos2k, 'davis/test/cup').moving == ({},) * 4


@pytest.mark.parametrize('text', ['', '[]', '{1: [[0, 1]]}', "{'0': []}", '(' * 300,
                                  "{'1': [[2, 1]]}", "{'1': [[0, 1.5]]}", "{'1': [0, 1]}",
                                  "__import__('os')",
                                  "{'1': [[-1, 2]]}", "{'²': []}"])
def test_bad_intervals_are_refused(text):
    with pytest.raises(DatasetError, match='must be'):
        parse_intervals(text)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(1, 255), st.lists(st.tuples(
    st.integers(0, 99), st.integers(0, 99)).map(lambda ends: tuple(sorted(ends))))))
def test_intervals_are_read_back(intervals):
    text = repr({str(key): [list(span) for span in spans] for key, spans in intervals.items()})
    assert parse_intervals(text) == intervals


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_gives_intervals_or_one_error(text):
    try:
        parse_intervals(text)
    except DatasetError as error:
        assert '\n' not in str(error)


def test_segtrack_objects_in_folders(tmp_path):
    for n in range(3):
        write_rgb(tmp_path / 'JPEGImages/drift' / f'f_{n}.png', picture(n))
        write_rgb(tmp_path / 'JPEGImages/girl' / f'{n}.png', picture(n))
        for number in (1, 2):
            mask = (ids_of(n) == number)[..., None].repeat(3, -1).astype(np.uint8) * 255
            write_rgb(tmp_path / 'GroundTruth/drift' / str(number) / f'{n:03d}.png', mask)
    write_rgb(tmp_path / 'GroundTruth/girl/1.png', mask)
    assert detect(tmp_path) == 'segtrack'
    found = module('segtrack').read(tmp_path, 'drift')
    assert np.array_equal(np.asarray(found.ids), [ids_of(n) for n in range(3)])
    assert found.has_label is None
    assert module('segtrack').read(tmp_path, 'girl').has_label.tolist() == [False, True, False]


def test_fbms_grey_levels_and_the_white_background_of_ppm(tmp_path):
    levels = np.array([0, 100, 180], np.uint8)
    for name in ('cars1', 'marple7'):
        for n in range(1, 4):
            write_rgb(tmp_path / 'Testset' / name / f'{name}_{n:02d}.jpg', picture(n))
    grey = levels[ids_of(0)]
    grey[0, 0] = 20  # between 0.05 and 0.1 of white
    truth = tmp_path / 'Testset' / '{}' / 'GroundTruth'
    for name, file, image in (('cars1', 'cars1_02.pgm', grey), ('marple7', 'marple7_03_gt.ppm',
                                                                np.where(grey == 180, 255, grey))):
        path = truth.parent.parent / name / 'GroundTruth' / file
        path.parent.mkdir()
        image = image[..., None].repeat(3, -1) if path.suffix == '.ppm' else image
        path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    assert detect(tmp_path) == 'fbms'
    cars = module('fbms').read(tmp_path, 'Testset/cars1')
    assert cars.has_label.tolist() == [False, True, False]
    assert np.array_equal(cars.ids[1], ids_of(0))
    weird = module('fbms').read(tmp_path, 'Testset/marple7').ids[2]
    assert weird[0, 0] == 1 and weird[3, 3] == 2 and weird[13, 21] == 0


def test_moca_boxes_and_motion(tmp_path):
    for n in range(4):
        write_rgb(tmp_path / 'JPEGImages/crab' / f'{n:05d}.jpg', picture(n))
    (tmp_path / 'annotations.csv').write_text(
        ',file_list,spatial_coordinates,metadata\n'
        '0,/crab/00000.jpg,"[2,-3,4,10,6]",{\'1\': \'2\'}\n'
        '1,/crab/00001.jpg,"[2,1,4,10,6]",{}\n2,/crab/00002.jpg,[],{}\n'
        '3,/crab/00003.jpg,"[2,2,4,10,6]",{\'1\': \'1\'}\n')
    assert detect(tmp_path) == 'moca'
    found = module('moca').read(tmp_path)
    assert found.boxes == ({1: (0, 4, 10, 10)}, {1: (1, 4, 11, 10)}, {}, {1: (2, 4, 12, 10)})
    assert found.moving == ({1: False}, {1: False}, {}, {1: True})
    results = tmp_path / 'results'
    for n, at in enumerate((0, 1, 0, 7)):
        mask = np.zeros(SIZE, np.uint8)
        mask[4:10, at:at + 10] = 1
        write_indexed(results / 'crab' / f'{n:05d}.png', mask)
    assert main(['evaluate', str(results), '--ground-truth', str(tmp_path), '--json',
                 str(tmp_path / 'score.json')]) == 0
    score = json.loads((tmp_path / 'score.json').read_text())['score']
    assert score['boxes']['J'] == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert score['boxes']['SR_0.5'] == pytest.approx(2 / 3)


def test_a_mask_of_the_background_is_turned_over():
    mask = np.ones(SIZE, bool)
    mask[5:9, 10:16] = False
    assert largest_box(mask) == (10, 5, 16, 9)
    assert largest_box(np.zeros(SIZE, bool)) is None
    assert box_iou((0, 0, 2, 2), (5, 5, 6, 6)) == 0 and BoxScores().summary()['J'] is None


def score(results, truth, tmp_path, *options):
    file = tmp_path / 'score.json'
    assert main(['evaluate', str(results), '--ground-truth', str(truth), '--json', str(file),
                 *options]) == 0
    return json.loads(file.read_text())['score']


def test_masks_against_gmos2k(gmos2k, tmp_path, capsys):
    results = tmp_path / 'results'
    shown = ({1}, {1}, {2}, {1, 2})
    for n in range(4):
        write_indexed(results / 'blackswan' / f'{n:05d}.png',
                      np.where(np.isin(ids_of(n), list(shown[n])), 7 - ids_of(n), 0))
        write_indexed(results / 'cup' / f'{n:05d}.png', np.zeros(SIZE))
    found = score(results, gmos2k, tmp_path)
    for matching in ('sequence', 'frame'):
        for mode in ('parity', 'strict'):
            assert found['mos_i'][matching][mode] == pytest.approx(
                {'J_mov': 1, 'mtIoU': 1, 'FP_count': 0})
    assert found['mos_i_left_out'] == ['davis/test/cup'] and found['sequences'] == 2
    assert found['unsupervised']['J_mean'] == pytest.approx((0.75 + 0.5) / 2)
    assert 'MOS-I' in capsys.readouterr().out
    np.save(results / 'blackswan___motion.npy', np.zeros((4, 20, 1)))
    gated = score(results, gmos2k, tmp_path, '--sequence', 'blackswan')
    assert gated['mos_i']['sequence']['parity']['J_mov'] == 0


def test_what_does_not_fit_is_refused(gmos2k, tmp_path, capsys):
    results = tmp_path / 'results'
    results.mkdir()
    for arguments, told in ((['--sequence', 'swan'], 'no sequence swan'), ([], 'has no masks')):
        assert main(['evaluate', str(results), '--ground-truth', str(gmos2k), *arguments]) == 1
        assert told in capsys.readouterr().err
    assert main(['evaluate', str(results / 'x'), '--ground-truth', str(gmos2k)]) == 1
    for n in range(3):
        write_indexed(results / 'blackswan' / f'{n:05d}.png', ids_of(n))
    assert main(['evaluate', str(results), '--ground-truth', str(gmos2k), '--sequence',
                 'blackswan']) == 1
    assert '3 masks for 4 frames' in capsys.readouterr().err
