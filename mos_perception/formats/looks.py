"""The raw look at each format behind `check.check`: file by file, so that one fault does not hide the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mos_perception import masks as mask_codes
from mos_perception.bag import GroundTruth, open_bag
from mos_perception.datatypes import EventPacket, Frame, Skip, SkipReason
from mos_perception.events.decode import EventStream
from mos_perception.formats import FORMATS, detect, module
from mos_perception.formats.check import EventCheck, Inspector, Report
from mos_perception.formats.files import (
    h5py,
    npz_names,
    numbered,
    read_indexed,
    read_json,
    read_npy,
    read_npz,
    read_rgb,
)
from mos_perception.messages import EventArray
from mos_perception.storage import TRUTH_IMAGE, TRUTH_INSTANCES

CHUNK = 4_000_000  # events looked at together


def look(path: Path, form: str, report: Report) -> None:
    """Add what is wrong at `path` to the report."""
    if form == 'auto':
        form = _guess(path, report)
    looks: dict[str, Inspector] = {'mousesis': _mousesis, 'sevd': _sevd, 'evimo': _evimo, 'evimo2': _evimo2,
                                         'davis': _davis, 'ytvis': _ytvis, 'dimos': _dimos, 'bag': _bag}
    if form in looks:
        looks[form](path, report)


def _guess(path: Path, report: Report) -> str:
    """The format, also where all its files are damaged; '' (and a finding) where none fits."""
    for name in FORMATS:
        with report.guard(path):
            if module(name).find(path):
                return name
    if path.suffix == '.npz' or any(path.glob('*.npz')):
        return 'evimo'
    with report.guard(path, 'unknown-layout'):
        detect(path)
    return ''


def _mousesis(path: Path, report: Report) -> None:
    form = module('mousesis')
    for file in form.files(path).values():
        count, size = 0, (0, 0)
        with report.guard(file), h5py().File(file, 'r') as data:
            missing = [name for name in form.COLUMNS if name not in data]
            if missing:
                report.add('missing-array', file, f'it lacks {", ".join(missing)}')
                continue
            count, *size = data['images'].shape[:3]
            stamps = form.frame_times(data)
            report.times(file, stamps)
            if not len(stamps) == count == len(data['img2event']):
                report.add('count-differs', file, f'{count} images, {len(stamps)} img_ts, {len(data["img2event"])} '
                           'img2event')
            report.index(file, 'img2event', data['img2event'][:], len(data['t']))
            events = EventCheck(report, file, tuple(size))
            for start in range(0, max(len(data[name]) for name in 'xypt'), form.CHUNK):
                x, y, p, t = (data[name][start:start + form.CHUNK] for name in 'xypt')
                events.add(x, y, p, t.astype(np.int64) * 1000)
            events.done(stamps)
        source = form.annotations_file(file)
        if source is None:
            report.add('missing-annotations', file, f'no {file.parent.name}_annotations.json beside or above it')
        elif count:
            whole = None
            with report.guard(source):
                whole = read_json(source)
            where = f'{source} ({file.name})'
            with report.guard(where, 'missing-annotations'):
                if whole is not None:
                    _tracks(form.records(whole, file), count, tuple(size), where, report,
                            lambda code: mask_codes.mask_from_pairs(code['counts'], tuple(code['size'])))


def _tracks(records: list[dict[str, Any]], count: int, size: tuple[int, int], where: str, report: Report,
            decode: Any) -> None:
    """Track records against the sequence's length and size."""
    seen = set()
    for record in records:
        with report.guard(where, 'mask-code'):
            codes = record['segmentations']
            if len(codes) != count:
                report.add('count-differs', where, f'object {record["id"]} has {len(codes)} masks for {count} frames')
            for code in filter(None, codes):
                if tuple(code['size']) != tuple(size):
                    report.add('size-differs', where, f'object {record["id"]} has masks of {code["size"]} px, frames '
                               f'are {list(size)}')
                if decode(code).any():
                    seen.add(record['id'])
    report.object_ids(where, seen, {record['id'] for record in records})


def _sevd(path: Path, report: Report) -> None:
    form = module('sevd')
    for folder in form.folders(path).values():
        pictures = numbered(folder)
        if not pictures:
            report.add('empty-sequence', folder, 'it has no f.png')
            continue
        size = _sizes(list(pictures.values()), folder, report)
        ticks = np.array(list(pictures))
        report.times(folder, ticks * form.TICK_NS)
        events = EventCheck(report, folder, size)
        for file in form.packets(folder).values():
            with report.guard(file):
                rows = form.read_packet(file)
                events.add(rows['x'], rows['y'], rows['pol'], rows['t'])
        events.done(np.empty(0, np.int64))
        masks = {int(file.stem): file for file in form._masks(folder)}
        for tick in pictures:
            file = folder / f'{tick}.json'
            if not file.is_file():
                report.add('missing-file', file, 'the labels of this tick are missing')
                continue
            with report.guard(file):
                known = {int(entry['id']) for entry in read_json(file)['annotations']}
                if tick in masks:
                    image = read_rgb(masks[tick]).astype(int)
                    ids = np.where(np.isin(image[..., 0], (4, *range(12, 20))), image[..., 1] + 256 * image[..., 2], 0)
                    report.object_ids(file, {int(value) for value in np.unique(ids)} - {0}, known)
                    if image.shape[:2] != size:
                        report.add('size-differs', masks[tick], f'{image.shape[:2]} px, the frames are {size}')


def _sizes(files: list[Path], where: Path, report: Report) -> tuple[int, int]:
    """(height, width) of the first readable picture; the others must agree."""
    size: tuple[int, int] | None = None
    for file in files:
        with report.guard(file):
            found = read_rgb(file).shape[:2]
            size = size or found
            if found != size:
                report.add('size-differs', where, f'{file.name} has {found} px, those before it {size}')
    return size or (0, 0)


def _evimo(path: Path, report: Report) -> None:
    form = module('evimo')
    files = [path] if path.is_file() else sorted(path.rglob('*.npz'))
    for file in files:
        with report.guard(file):
            missing = {'events', 'mask', 'meta', 'depth', 'index'} - set(npz_names(file))
            if missing:
                report.add('missing-array', file, f'it lacks {", ".join(sorted(missing))}')
                continue
            meta, mask, rows = (read_npz(file, name) for name in ('meta', 'mask', 'events'))
            stamps = form.frame_times(meta)
            report.times(file, stamps)
            if len(mask) != len(stamps):
                report.add('count-differs', file, f'{len(mask)} masks for {len(stamps)} frames in meta')
            depth = read_npz(file, 'depth')
            if depth.shape != mask.shape:
                report.add('size-differs', file, f'depth is {depth.shape}, mask {mask.shape}')
            events = EventCheck(report, file, mask.shape[1:3])
            if rows.ndim != 2 or rows.shape[1] != 4:
                report.add('event-columns', file, f'events are {rows.shape}: must be (N, 4)')
            else:
                events.add(rows[:, 1], rows[:, 2], rows[:, 3], form.nanoseconds(rows[:, 0], meta))
                events.done(stamps)
            report.index(file, 'index', read_npz(file, 'index'), len(rows))
            _evimo_ids(file, np.unique(mask), meta, report)


def _evimo_ids(file: Path, values: np.ndarray, meta: dict[str, Any], report: Report) -> None:
    form = module('evimo')
    if (values % form.SCALE != 0).any():
        report.add('mask-values', file, f'masks hold {values[values % form.SCALE != 0][0]}: must be object id x 1000')
    known = {int(key) for frame in meta['frames'] for key in frame if str(key).isdecimal()}
    seen = {int(value) for value in np.rint(values / form.SCALE)} - {0}
    if known:
        report.object_ids(file, seen, known)


def _evimo2(path: Path, report: Report) -> None:
    form, v1 = module('evimo2'), module('evimo')
    for folder in form.folders(path).values():
        with report.guard(folder / form.INFO):
            meta = read_npz(folder / form.INFO, 'meta')
            stamps = v1.frame_times(meta)
            report.times(folder / form.INFO, stamps)
            values, size = set(), (int(meta['meta']['res_y']), int(meta['meta']['res_x']))
            for kind in ('mask', 'classical', 'depth'):
                file = folder / f'dataset_{kind}.npz'
                if not file.is_file():
                    if kind == 'mask':
                        report.add('missing-file', file, 'the masks are missing')
                    continue
                with report.guard(file):
                    for name in npz_names(file):
                        picture = read_npz(file, name)
                        size = picture.shape[:2] if kind == 'mask' and not values else size
                        values |= set(np.unique(picture).tolist()) if kind == 'mask' else set()
                        if picture.shape[:2] != size:
                            report.add('size-differs', file, f'{name} has {picture.shape[:2]} px, the masks {size}')
            _evimo_ids(folder / 'dataset_mask.npz', np.array(sorted(values)), meta, report)
            columns = [folder / f'dataset_events_{name}.npy' for name in ('t', 'xy', 'p')]
            gone = [file for file in columns if not file.is_file()]
            if gone:
                report.add('missing-file' if len(gone) < 3 else 'no-events', gone[0], 'the events are missing')
                continue
            events = EventCheck(report, folder, size)
            with report.guard(folder):
                t, xy, p = (read_npy(file) for file in columns)
                for start in range(0, max(len(t), len(xy), len(p)), CHUNK):
                    part = slice(start, start + CHUNK)
                    events.add(xy[part, 0], xy[part, 1], p[part], v1.nanoseconds(t[part], meta))
                events.done(stamps)
                report.index(folder / form.INFO, 'index', read_npz(folder / form.INFO, 'index'), len(t))


def _davis(path: Path, report: Report) -> None:
    form = module('davis')
    found = form.folders(path)
    for frames, masks in found.values():
        pictures = form.images(frames)
        if not pictures:
            report.add('empty-sequence', frames, 'it has no pictures')
            continue
        _sizes(pictures, frames, report)
        if masks is None:
            report.add('missing-annotations', frames, 'it has no folder of masks')
            continue
        files = form.images(masks)
        lacking = sorted({file.stem for file in pictures} - {file.stem for file in files})
        if lacking:
            report.add('missing-file', masks, f'{len(lacking)} frames have no mask, the first is {lacking[0]}')
        shapes = set()
        for file in files:
            with report.guard(file):
                shapes.add(read_indexed(file).shape)
        if len(shapes) > 1:
            report.add('size-differs', masks, f'masks have sizes {sorted(shapes)}')
    for listing in sorted(path.glob('ImageSets/*/*.txt')):
        names = {line.split()[0].strip('/').split('/')[-2 if '.' in line else -1]
                 for line in listing.read_text().splitlines() if line.strip()}
        for name in sorted(names - set(found)):
            report.add('missing-file', f'{listing}: {name}', 'the list names a sequence that is not there')


def _ytvis(path: Path, report: Report) -> None:
    form = module('ytvis')
    for file in form.json_files(path):
        with report.guard(file):
            whole = read_json(file)
            known = {video['id'] for video in whole['videos']}
            for video in whole['videos']:
                where = f'{file} (video {video["id"]})'
                pictures = [form.images_folder(file) / name for name in video['file_names']]
                gone = [picture for picture in pictures if not picture.is_file()]
                if gone:
                    report.add('missing-file', gone[0], f'{len(gone)} pictures of video {video["id"]} are missing')
                if not pictures:
                    report.add('empty-sequence', where, 'it has no pictures')
                size = (video['height'], video['width'])
                found = _sizes([picture for picture in pictures if picture.is_file()], Path(where), report)
                if pictures != gone and found != size:
                    report.add('size-differs', where, f'pictures have {found} px, the record says {size}')
                _tracks([entry for entry in whole.get('annotations') or [] if entry['video_id'] == video['id']],
                        len(pictures), size, where, report, mask_codes.mask_from_coco)
            lost = {entry['video_id'] for entry in whole.get('annotations') or []} - known
            if lost:
                report.add('annotation-without-mask', file, f'annotations of unknown videos {sorted(lost)}')


def _dimos(path: Path, report: Report) -> None:
    form = module('dimos')
    for folder in form.folders(path).values():
        numbers = [int(file.stem) for file in form.samples(folder)]
        report.times(folder, np.array(numbers, np.int64) * 10**9)
        size = None
        for file in form.samples(folder):
            with report.guard(file), h5py().File(file, 'r') as data:
                missing = {'image1', 'image2', 'mov_seg', 'event_voxel'} - set(data)
                if missing:
                    report.add('missing-array', file, f'it lacks {", ".join(sorted(missing))}')
                    continue
                shapes = {data[name].shape[:2] for name in ('image1', 'image2', 'mov_seg', 'event_voxel')}
                size = size or data['image1'].shape[:2]
                if shapes != {size}:
                    report.add('size-differs', file, f'arrays have sizes {sorted(shapes)}, the first sample {size}')
        listing = folder / 'valid.txt'
        if not listing.is_file():
            report.add('missing-file', listing, 'it says which frames count; all do without it')
            continue
        with report.guard(listing):
            lacking = sorted(set(numbers) - set(form.read_valid(listing)))
            if lacking:
                report.add('count-differs', listing, f'{len(lacking)} samples have no line, the first is {lacking[0]}')


def _bag(path: Path, report: Report) -> None:
    """Message by message: recordings may be larger than the memory."""
    with report.guard(path), open_bag(path) as bag:
        image, packets = bag.pick()
        truth = [name for name in bag.candidates('truth') if name in (TRUTH_IMAGE, TRUTH_INSTANCES)]
        stamps, sizes, stream, skips = [], set(), EventStream(), []
        events: EventCheck | None = None
        for _, value in bag.items({name for name in (image, packets, *truth) if name}):
            if isinstance(value, Frame):
                stamps.append(value.stamp_ns)
                sizes.add(value.size)
            elif isinstance(value, GroundTruth):
                sizes.add(value.ids.shape)
            elif isinstance(value, Skip):
                skips.append(value)
            elif isinstance(value, (EventPacket, EventArray)):
                events = events or EventCheck(report, path, (value.height, value.width))
                found, _, lost = (stream.push(value) if isinstance(value, EventPacket)
                                  else stream.push_events(value.events, value.height, value.width))
                skips += lost
                events.add(found.x, found.y, found.p, found.t)
        for skip in skips:
            report.add(_SKIPS.get(skip.reason, 'unreadable'), path, f'{skip.detail} (at {skip.stamp_ns} ns)')
        if bag.fault:
            report.add('unreadable', path, bag.fault)
        if len(sizes) > 1:
            report.add('size-differs', path, f'frames and truth have sizes {sorted(sizes)}')
        if not truth:
            report.add('missing-annotations', path, f'it has no {TRUTH_IMAGE} and {TRUTH_INSTANCES}')
        if not image:
            report.add('no-frames', path, 'it has no image topic')
        else:
            report.times(path, np.array(stamps, np.int64))
        (events or EventCheck(report, path, (0, 0))).done(np.array(stamps, np.int64))


_SKIPS = {SkipReason.OUT_OF_BOUNDS: 'coordinates', SkipReason.SIZE_CHANGED: 'size-differs',
          SkipReason.PACKET_GAP: 'packet-gap'}
