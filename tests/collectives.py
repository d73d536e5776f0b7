"""The collectives of a compiled program: how many of each kind it has, and how many bytes a device puts in."""

import collections
import math
import re

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'collective-permute', 'all-to-all')
_CALL = re.compile(rf' = (.*?) ({"|".join(KINDS)})(-start)?\((.*)')  # = SHAPE all-reduce(; SHAPE may be a tuple
_SHAPE = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\]')
_GROUPS = re.compile(r'replica_groups=(?:\[(?:\d+,)*(\d+)\]<=|\{\{([\d,]*)\})')
_BITS = {'pred': 8, 's4': 4, 'u4': 4}


def of(text: str) -> dict[str, dict[str, int]]:
    """Returns for each kind of collective in an optimized HLO its count and its bytes.

    The bytes are those of the whole value on one device: what is reduced, what has been gathered, or what is scattered. With
    a ring of n devices, an all-reduce sends 2 (n - 1) / n times that from each device, and the others (n - 1) / n times. A
    collective in the body of a loop counts once.
    """
    found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for line in text.splitlines():
        call = _CALL.search(line)
        if call is None:
            continue
        shape, kind, start, rest = call.groups()
        sizes = [_bytes(*part) for part in _SHAPE.findall(shape)]
        if start and kind != 'all-reduce':  # the result of such a start holds its operand, its result, and flags
            sizes = [max(sizes)]
        elif kind == 'reduce-scatter':
            sizes = [sum(sizes) * _group_size(rest)]
        found[kind].update(count=1, bytes=sum(sizes))
    return {kind: dict(found[kind]) for kind in KINDS if kind in found}


def _bytes(dtype: str, dimensions: str) -> int:
    bits = _BITS.get(dtype) or int(re.search(r'\d+', dtype)[0])
    return math.prod(int(size) for size in dimensions.split(',') if size) * bits // 8


def _group_size(rest: str) -> int:
    match = _GROUPS.search(rest)
    return int(match[1]) if match[1] else len(match[2].split(','))
