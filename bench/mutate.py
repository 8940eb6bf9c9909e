"""Bad input made of good input: bytes, JSON values and numbers, changed as damage and malice change
them. Everything follows from the random generator that is passed in.
"""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31,
           2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_VALUES = (None, True, False, -1, 0, 1, 3, 2**31, 2**64, 10**400, 1e308, 0.5, -0.0, float('nan'),
           float('inf'), '', 'x', '\0', '../../x', '/etc/x', 'é' * 300, '9' * 30, [], {}, [[]],
           [0, 0], [1e9, 1e9], {'size': [2**20, 2**20], 'counts': [2**40]})


def number(rng: Random, value: int, bits: int) -> int:
    """Another unsigned integer of so many bits."""
    kind = rng.randrange(3)
    if kind == 0:
        value = rng.choice(NUMBERS)
    elif kind == 1:
        value += rng.choice((-2, -1, 1, 2, 1000))
    else:
        value ^= 1 << rng.randrange(bits)
    return value & (1 << bits) - 1


def mutate_bytes(rng: Random, data: bytes, changes: int = 4) -> bytes:
    """Up to so many changes: bits, words, blocks that move, repeat or go, a cut-off end."""
    found = bytearray(data)
    for _ in range(rng.randint(1, changes)):
        at = rng.randrange(len(found) + 1)
        size = min(rng.choice((1, 2, 4, 8, 16, rng.randint(1, 256))), len(found) - at)
        kind = rng.randrange(9)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(found):
            found[at] = rng.randrange(256)
        elif kind in (2, 3):  # a word, aligned as headers are
            width = rng.choice((1, 2, 4, 8))
            start = at - at % width
            if start + width <= len(found):
                order = rng.choice(('little', 'big'))
                old = int.from_bytes(found[start:start + width], order)
                new = number(rng, old, 8 * width)
                found[start:start + width] = new.to_bytes(width, order)
        elif kind == 4:
            del found[at:at + size]
        elif kind == 5:
            found[at:at] = rng.randbytes(rng.randint(1, 16))
        elif kind == 6:
            found[at:at] = found[at:at + size] * rng.choice((1, 1, 3))
        elif kind == 7:
            found[at:at + size] = bytes(size)
        elif rng.random() < 0.3:
            del found[at:]
    return bytes(found)


def mutate_json(rng: Random, text: str, changes: int = 3) -> bytes:
    """The JSON text with some of its values, keys or lists changed; rarely no JSON any more."""
    value = json.loads(text)
    for _ in range(rng.randint(1, changes)):
        value = _changed(rng, value)
    data = json.dumps(value).encode()
    chance = rng.random()
    if chance < 0.03:
        return b'[' * 100_000
    return mutate_bytes(rng, data, 2) if chance < 0.15 else data


def _changed(rng: Random, value: Any) -> Any:
    """One value somewhere below, or this one, replaced, left out, repeated or renamed."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        kind = rng.randrange(8)
        if kind == 0:
            del value[key]
        elif kind == 1 and isinstance(value, dict):
            value[rng.choice(('', 'x', f'{key}s', key.upper()))] = value.pop(key)
        elif kind == 1:
            value[key:key] = [deepcopy(value[key]) for _ in range(rng.choice((1, 2, 50)))]
        else:
            value[key] = _changed(rng, value[key])
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((-value, value + 1, value * 1e6, value + 0.5))
    return deepcopy(rng.choice(_VALUES))
