"""The `mos` command. Imports what a subcommand needs only when it runs, so that help comes at once.

Exit codes: 0 done, 1 an input cannot be used, 2 a wrong option or parameter, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mos_perception.errors import ConfigError, MosError
from mos_perception.formats import FORMATS

# subcommand -> the file of `commands/` that runs it
ROOMS = {'replay': 'run', 'evaluate': 'run', 'show': 'run', 'demo': 'run', 'convert': 'data',
         'check-data': 'data', 'topics': 'data', 'build': 'machine', 'doctor': 'machine',
         'import': 'imports', 'register': 'register', 'refine': 'refine', 'adapt': 'adapt'}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code.

    One line on stderr for anything that is not a defect of ours.
    """
    args = _parser().parse_args(arguments)
    room = importlib.import_module(f'mos_perception.commands.{ROOMS[args.command]}')
    try:
        getattr(room, f'{args.command.replace("-", "_")}_command')(args)
    except ConfigError as error:
        return _complain(error, 2)
    except (MosError, OSError) as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _complain(error: Exception, code: int) -> int:
    print(f'mos: {" ".join(str(error).split())}', file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='mos', description='What moves: instances from frames and events.'
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    _replay(commands.add_parser('replay', help='run the pipeline on bags, without ROS'))
    _refine(commands.add_parser('refine', help='a bag again, tracks mended from before and after'))
    _evaluate(commands.add_parser('evaluate', help='score bags that have ground truth'))
    _show(
        commands.add_parser(
            'show', help='overlay video, contact sheet and table of recorded node output'
        )
    )
    _demo(commands.add_parser('demo', help='play a bag to the real node, record, score and show'))
    _convert(
        commands.add_parser(
            'convert', help='a data set sequence or a folder of images to a bag, and back'
        )
    )
    _check_data(commands.add_parser('check-data', help='say what is wrong with a folder of data'))
    _build(
        commands.add_parser(
            'build', help='make the TensorRT engine of a model, on the machine that runs it'
        )
    )
    _register(
        commands.add_parser(
            'register', help="where an event camera's pixels are in the frames, from a bag of both"
        )
    )
    _import(commands.add_parser('import', help='published weights as a model'))
    _adapt(commands.add_parser('adapt', help='a model learned on from your recordings, unlabelled'))
    _doctor(
        commands.add_parser('doctor', help='what this machine has and lacks; send it with a report')
    )
    topics = commands.add_parser('topics', help='list what a bag holds')
    topics.add_argument('bag', type=Path, metavar='BAG')
    _inputs(topics, model=False)
    return parser


def _inputs(parser: argparse.ArgumentParser, model: bool = True, report: bool = True) -> None:
    parser.add_argument(
        '--image-topic', metavar='NAME', help="frames; default: found by type; '' for none"
    )
    parser.add_argument(
        '--events-topic', metavar='NAME', help="events; default: found by type; '' for none"
    )
    if report:
        parser.add_argument('--json', type=Path, metavar='PATH', help='write the summary there')
    if model:
        parser.add_argument(
            '--model', metavar='NAME', help='a name under models/ or a path to an .onnx file'
        )
        parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                            help='a parameter of docs/parameters.md; may be repeated')


def _replay(parser: argparse.ArgumentParser) -> None:
    _bags(parser)
    parser.add_argument(
        '--out', type=Path, metavar='DIR', help='results.jsonl, overlay video and contact sheet'
    )
    parser.add_argument(
        '--out-bag', type=Path, metavar='BAG', help='results as a bag of mos_msgs/Instances'
    )
    parser.add_argument(
        '--rrd', type=Path, metavar='FILE', help='the run for the Rerun viewer (needs rerun-sdk)'
    )
    _inputs(parser)


def _refine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', type=Path, metavar='BAG', help='rosbag2 folder, .mcap or .db3')
    parser.add_argument('--out', type=Path, required=True, metavar='BAG2',
                        help='new bag of instances, instance image and tracks')
    parser.add_argument('--pictures', type=Path, metavar='DIR',
                        help='overlay video and contact sheet; default: BAG2_pictures')
    parser.add_argument('--refiner', default='refiner_nano', metavar='NAME',
                        help='a name under models/trackers/ or a path to an .onnx file')
    _inputs(parser)


def _bags(parser: argparse.ArgumentParser, other: str = '') -> None:
    parser.add_argument('bag', type=Path, nargs='+', metavar='BAG',
                        help=f'rosbag2 folder, .mcap or .db3{other}; several: one table over all, '
                        'which the same command finishes where it was stopped')
    parser.add_argument('--jobs', type=int, default=0, metavar='N',
                        help='worker processes for several bags; default: one per core')
    parser.add_argument('--ray', metavar='ADDRESS',
                        help="several bags on a Ray cluster: 'auto', HOST:PORT or ray://HOST:PORT")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _bags(parser, ', or a folder of masks, SEQUENCE/00000.png')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='of several bags: rows/, table.csv, table.json; default: out/evaluate')
    parser.add_argument(
        '--ground-truth', type=Path, metavar='BAG',
        help='bag with the ground truth; default: BAG; for masks the data set (docs/formats.md)',
    )
    parser.add_argument(
        '--sequence', action='append', default=[], metavar='NAME',
        help='of the data set; may be repeated; default: all',
    )
    parser.add_argument(
        '--results', type=Path, metavar='BAG', help='score these recorded results, run no model'
    )
    parser.add_argument('--results-topic', metavar='NAME', help='default: found by type')
    _inputs(parser)


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--bag', type=Path, required=True, help='what the node was fed')
    parser.add_argument(
        '--results', type=Path, required=True, metavar='BAG', help='what it answered'
    )
    parser.add_argument('--results-topic', metavar='NAME', help='default: found by type')
    parser.add_argument('--out', type=Path, default=Path('out/show'), metavar='DIR')
    _inputs(parser, model=False)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', type=Path, metavar='BAG', help='rosbag2 folder, .mcap or .db3')
    parser.add_argument('--out', type=Path, default=Path('out/demo'), metavar='DIR')
    parser.add_argument('--rate', type=float, default=1.0, help='speed of playing, 1 = real time')
    _inputs(parser)


def _convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'source', type=Path, metavar='SOURCE', help='data set, bag, or folder of images by name'
    )
    parser.add_argument('target', type=Path, metavar='DEST', help='what to write')
    parser.add_argument('--from', dest='form', choices=('auto', 'images', *FORMATS), default='auto')
    parser.add_argument('--to', choices=FORMATS, default='bag')
    parser.add_argument(
        '--sequence', default='', metavar='NAME', help='which one, where SOURCE has several'
    )
    parser.add_argument(
        '--fps', type=float, help="for sources without times; default: 30, or the data set's own"
    )
    parser.add_argument(
        '--topic', default='/camera/image_raw', metavar='NAME', help='of the frames in a bag'
    )
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    parser.add_argument(
        '--encoding',
        choices=('auto', 'evt3', 'mono'),
        default='auto',
        help='of the events in a bag',
    )


def _check_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'folder', type=Path, metavar='FOLDER', help='a data set, a part of one, or a bag'
    )
    parser.add_argument('--from', dest='form', choices=('auto', *FORMATS), default='auto')
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the findings there')


def _build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--model',
        default='dimos_light',
        metavar='NAME',
        help='a name under models/ or an .onnx file',
    )
    parser.add_argument('--backend', choices=('tensorrt', 'tensorrt_rtx'), default='tensorrt')
    parser.add_argument(
        '--force', action='store_true', help='build even if the cache has the engine'
    )


def _register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', type=Path, metavar='BAG', help='rosbag2 folder, .mcap or .db3')
    parser.add_argument(
        '--image-topic', metavar='NAME', help='frames; default: found by type'
    )
    parser.add_argument(
        '--events-topic', metavar='NAME', help='events; default: found by type'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('homography.json'), metavar='FILE',
        help='for parameter homography_file',
    )
    parser.add_argument(
        '--overlay', type=Path, metavar='PICTURE', help='.png or .jpg; default: beside --out'
    )


def _import(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest='what', required=True, metavar='WHAT')
    gmos = kinds.add_parser('gmos', help='GMOS or GMOS-S, with Pi3 and SAM 2.1')
    sam2 = kinds.add_parser('sam2', help='SAM 2.1: image encoder and video memory')
    for kind in (gmos, sam2):
        kind.add_argument('--checkpoint', type=Path, required=True, metavar='FILE')
        kind.add_argument(
            '--size', choices=('tiny', 'small', 'base_plus', 'large'), default='large',
            help="SAM 2.1's; the published GMOS was trained with large",
        )
        kind.add_argument('--out', type=Path, default=Path('models'), metavar='DIR')
    dimos = kinds.add_parser('dimos', help='DIMOS as released: frames and events')
    dimos.add_argument('--checkpoint', type=Path, required=True, metavar='FILE')
    dimos.add_argument('--data', choices=('mousesis', 'sevd'), default='mousesis',
                       help='what it was trained on: its size of input')
    dimos.add_argument('--out', type=Path, default=Path('models'), metavar='DIR')
    dvis = kinds.add_parser('dvis', help="DVIS' tracker and refiner, for queries of its segmenter")
    dvis.add_argument('--checkpoint', type=Path, required=True, metavar='FILE')
    dvis.add_argument('--queries', type=int, default=100, metavar='N',
                      help="the segmenter's: 100 of ResNet-50, 200 of Swin-L")
    dvis.add_argument('--frames', type=int, default=21, metavar='T', help='of a refined clip')
    dvis.add_argument('--out', type=Path, default=Path('models'), metavar='DIR')
    gmos.add_argument('--pi3', type=Path, required=True, metavar='FILE')
    gmos.add_argument('--sam2', type=Path, required=True, metavar='FILE')
    gmos.add_argument(
        '--image-size', type=int, nargs=2, default=(378, 672), metavar=('H', 'W'),
        help="Pi3's input in px, multiples of 14",
    )


def _adapt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('bag', type=Path, nargs='+', metavar='BAG',
                        help='rosbag2 folder, .mcap or .db3 with frames, with or without events')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE',
                        help='the .onnx file to write; its card and report come beside it')
    parser.add_argument('--movable-model', metavar='NAME',
                        help='what the model sees moving teaches this one, which sees a single '
                        'picture (movable_nano)')
    parser.add_argument('--steps', type=int, metavar='N', help='of fine-tuning')
    parser.add_argument('--most-seconds', type=float, metavar='S',
                        help='of video to watch, shared among the recordings')
    _inputs(parser, report=False)


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--model',
        default='dimos_light',
        metavar='NAME',
        help='a name under models/ or an .onnx file',
    )
    parser.add_argument(
        '--backend', default='auto',
        choices=('auto', 'onnxruntime', 'onnxruntime_cuda', 'tensorrt', 'tensorrt_rtx'),
    )
    parser.add_argument('--json', type=Path, metavar='PATH', help='write the findings there')


if __name__ == '__main__':
    sys.exit(main())
