"""Encoders against the plain Python decoder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_perception.datatypes import Events
from mos_perception.events import encode
from mos_perception.events.reference import Reference

event = st.tuples(st.integers(0, 199), st.integers(0, 99), st.integers(0, 1),
                  st.integers(0, 300_000))
rows = st.lists(event, max_size=40).map(lambda found: sorted(found, key=lambda row: row[3]))


def as_events(found, base_ns=0):
    x, y, p, us = zip(*found) if found else ([], [], [], [])
    return Events(np.array(x, np.uint16), np.array(y, np.uint16), np.array(p, np.uint8),
                  base_ns + np.array(us, np.int64) * 1000)


def in_ns(found, base_ns=0):
    return [(x, y, p, base_ns + us * 1000) for x, y, p, us in found]


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(0, 40_000_000))
def test_evt3(found, start_us):
    """Each packet starts with its own time, so any start modulo 2^24 us decodes alone."""
    payload = encode.encode_evt3(as_events(found, start_us * 1000))
    plain = Reference('evt3', 200, 100).decode(payload)
    first_us = start_us + (found[0][3] if found else 0)
    wraps = (first_us >> 24 << 24) * 1000
    assert [(x, y, p, t + wraps) for x, y, p, t in plain] == in_ns(found, start_us * 1000)
    packed = Reference('evt3', 200, 100).decode(encode.encode_evt3(as_events(found), vectors=True))

    def by_time(row):
        return row[3], row
    assert sorted(packed, key=by_time) == sorted(set(in_ns(found)), key=by_time)


@settings(max_examples=50, deadline=None)
@given(rows, st.sampled_from([0, 1_744_227_144_000_000_000]))
def test_with_time_base(found, base):
    events = as_events(found, base)
    for name, make in (('mono', encode.encode_mono), ('libcaer', encode.encode_libcaer),
                         ('libcaer_cmp', encode.encode_libcaer_cmp)):
        assert Reference(name, 200, 100).decode(make(events, base), base) == in_ns(found, base)


@pytest.mark.parametrize('found', [[], [(1, 2, 1, 50)]])
def test_time_words_reach_the_end(found):
    """A quiet sensor still says how far it watched."""
    oracle = Reference('evt3', 200, 100)
    oracle.decode(encode.encode_evt3(as_events(found), until_us=123_456))
    assert (oracle.high << 12 | oracle.low, oracle.seen) == (123_456, 2)


def test_vectors_are_smaller():
    row = as_events([(x, 5, 1, 7) for x in range(120)])
    assert len(encode.encode_evt3(row, vectors=True)) == 2 * (3 + 1 + 10)
