"""Estimates from published bandwidths how long the collectives of a step take on 8 to 1024 chips, as a table in Markdown.

    python tests/benchmarks/ring_times.py docs/results/tpu_pod_2026-11-27_jax0.10.2_libtpu0.0.42.1.json

The file is one that `compile_for_tpu.py` made; the bytes are those of its programs. They are per chip and hardly depend on
the number of chips. On a ring of n chips, each sends 2 (n - 1) / n times the bytes of an all-reduce and (n - 1) / n times
those of the other collectives. Nothing of this was measured. It leaves out latency, which counts for the many small
all-reduces of batch normalization, and that XLA hides a part of the communication behind computation.
"""

import argparse
import dataclasses
import json
import pathlib

CHIPS = (8, 32, 64, 256, 1024)


@dataclasses.dataclass(frozen=True)
class Link:
    """What connects chips.

    Attributes:
      name: Of the chip.
      gigabytes: Per second, out of one chip, over all its links together.
      largest: Number of chips that are connected this way.
      derivation: From which published figure.
      source: Its address.
    """

    name: str
    gigabytes: float
    largest: int
    derivation: str
    source: str


TPU = 'https://docs.cloud.google.com/tpu/docs/'
H100 = 'https://www.github.com/NVIDIA/nccl/issues/1264'
INFINIBAND = (
    'https://docs.nvidia.com/dgx-basepod/reference-architecture-infrastructure-foundation-enterprise-ai/latest/'
    'core-components.html'
)
LINKS = (
    Link('v4', 1.1e6 / 4096, 4096, 'all-reduce bandwidth of 1.1 PB/s for 4096 chips', TPU + 'v4'),
    Link('v5e', 51.2e3 / 256, 256, 'all-reduce bandwidth of 51.2 TB/s for 256 chips', TPU + 'v5e'),
    Link('v5p', 1200 / 2, 6144, '1200 GB/s a chip in both directions', TPU + 'v5p'),
    Link('v6e', 102.4e3 / 256, 256, 'all-reduce bandwidth of 102.4 TB/s for 256 chips', TPU + 'v6e'),
    Link('H100, one host', 900 / 2, 8, 'NVLink, 900 GB/s a GPU in both directions', H100),
    # A ring through each of the eight adapters of a host carries an eighth of the bytes.
    Link('H100, several hosts', 8 * 400 / 8, 1024, '8 adapters of 400 Gbit/s a host of 8 GPUs', INFINIBAND),
)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file', type=pathlib.Path)
    rows = json.loads(parser.parse_args().file.read_text(encoding='utf-8'))
    print('| link | GB/s out of a chip | from |\n|---|---|---|')
    for link in LINKS:
        print(f'| {link.name} | {link.gigabytes:.0f} | [{link.derivation}]({link.source}) |')
    for row in rows:
        if row['program'] != 'bim' and row['devices'] > 1:
            print(f'\n{title(row)}\n\n| chips | {" | ".join(link.name for link in LINKS)} |')
            print('|---' * (len(LINKS) + 1) + '|')
            for chips in CHIPS:
                print(f'| {chips} | {" | ".join(cell(row["collectives"], chips, link) for link in LINKS)} |')


def title(row: dict) -> str:
    """What was compiled, and what it communicates."""
    options = [name for name in ('shard_parameters', 'rematerialize') if row[name]]
    options += [f'group_size {row["group_size"]}'] if row['group_size'] else []
    parts = [f'{v["count"]} {kind}, {v["bytes"] / 1e6:.1f} MB in all' for kind, v in row['collectives'].items()]
    return f'{", ".join([row["model"], row["program"], *options])}: {"; ".join(parts)}'


def cell(found: dict[str, dict[str, int]], chips: int, link: Link) -> str:
    """The milliseconds of a step on so many chips, if they are connected this way."""
    if chips > link.largest or (link.name == 'H100, several hosts' and chips <= 8):
        return ''
    return f'{milliseconds(found, chips, link.gigabytes):.2f} ms'


def milliseconds(found: dict[str, dict[str, int]], chips: int, gigabytes: float) -> float:
    """The time of collectives on a ring; see the start of this file."""
    passes = {'all-reduce': 2}
    sent = sum(passes.get(kind, 1) * values['bytes'] for kind, values in found.items()) * (chips - 1) / chips
    return sent / (gigabytes * 1e9) * 1e3


if __name__ == '__main__':
    main()
