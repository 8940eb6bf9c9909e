"""A made-up panoptic video and its prediction, in VIPSeg's files."""

import numpy as np

from mos_perception.formats.files import write_json
from mos_perception.formats.image_files import write_rgb

SIZE = (12, 16)


def write_vps(root, pictures, name, ids, infos):
    """One video of frames of (H, W) ids."""
    frames = []
    for n, image in enumerate(ids):
        red_first = np.stack([image % 256, image // 256 % 256, image // 65536], -1)
        write_rgb(root / pictures / name / f'{n:05d}.png', red_first.astype(np.uint8))
        there = [{'id': number, **infos[number]} for number in np.unique(image).tolist() if number]
        frames.append({'file_name': f'{n:05d}.jpg', 'segments_info': there})
    return {'video_id': name, 'annotations': frames}


def vps_case(root):
    """A thing of id 300 on stuff of id 7; a crowd."""
    ids = np.full((2, *SIZE), 7)
    ids[0, 2:6, 2:6] = ids[1, 2:6, 4:8] = 300
    ids[:, :, 14:] = 9
    infos = {7: {'category_id': 1}, 300: {'category_id': 2}, 9: {'category_id': 2, 'iscrowd': 1}}
    about = write_vps(root, 'panomasksRGB', 'v', ids, infos)
    write_json(root / 'panoptic_gt_VIPSeg_val.json', {
        'categories': [{'id': 1, 'isthing': 0}, {'id': 2, 'isthing': 1}], 'annotations': [about]})
    ids[ids == 300] = 5
    found = write_vps(root / 'found', 'pan_pred', 'v', ids, {
        7: {'category_id': 1}, 5: {'category_id': 2}, 9: {'category_id': 1}})
    write_json(root / 'found' / 'pred.json', {'annotations': [found]})
    return root / 'panoptic_gt_VIPSeg_val.json', root / 'found'
