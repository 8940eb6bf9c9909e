"""`mos convert | check-data | topics`: data sets and bags, without a model."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from mos_perception.errors import ConfigError, DatasetError
from mos_perception.recording.bag import open_bag


def convert_command(args: argparse.Namespace) -> None:
    """`mos convert`: a sequence of a data set into another format, most often a bag; or a folder of
    images to a bag.
    """
    from mos_perception.formats import conversion
    if conversion.is_images(args.source, args.form):
        if args.to != 'bag':
            raise ConfigError(f'--to is {args.to}: a folder of images becomes a bag only')
        from mos_perception.recording.image_folder import bag_from_images

        count = bag_from_images(
            args.source,
            args.target,
            30.0 if args.fps is None else args.fps,
            args.topic,
            args.storage,
        )
        print(f'{args.target}: {count} frames on {args.topic}')
        return
    bag = (
        {'encoding': args.encoding, 'storage': args.storage, 'image_topic': args.topic}
        if args.to == 'bag'
        else {}
    )
    sequence, written = conversion.convert(
        args.source, args.target, args.form, args.to, args.sequence, args.fps, **bag
    )
    print(f'{written}: {conversion.summary(sequence, args.to)}')
    for note in sequence.notes:
        print(f'note: {note}')


def check_data_command(args: argparse.Namespace) -> None:
    """`mos check-data`: everything that is wrong with a folder, as a table.

    Raises DatasetError if any is an error.
    """
    from dataclasses import asdict

    from mos_perception.formats.check import check_data, findings_table
    findings = check_data(args.folder, args.form)
    if findings:
        Console().print(findings_table(findings))
    errors = sum(finding.level == 'error' for finding in findings)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(
            json.dumps(
                [
                    {**asdict(finding), 'level': finding.level, 'remedy': finding.remedy}
                    for finding in findings
                ],
                indent=1,
            )
            + '\n'
        )
    print(f'{args.folder}: {errors} errors, {len(findings) - errors} warnings')
    if errors:
        raise DatasetError(f'{args.folder} has {errors} errors: see the table')


def topics_command(args: argparse.Namespace) -> None:
    """`mos topics`: what a bag holds; with --json, what a node would be fed from it.

    Raises BagError with --json for a bag without any input.
    """
    with open_bag(args.bag) as bag:
        if args.json is not None:
            image, events = bag.pick(args.image_topic, args.events_topic)
            fed = {'image_topic': image, 'image_type': bag.image_type(image),
                   'events_topic': events,
                   'events_type': bag.events_type(events)}
            args.json.write_text(json.dumps(fed) + '\n')
        for topic in bag.topics:
            print(f'{topic.name}  {topic.msgtype}  {topic.count}  {topic.role}')
        if bag.fault:
            print(f'partial: {bag.fault}')
