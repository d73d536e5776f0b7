"""From a list of images to a finished data set: what is missing is made, and then it is put in its place at once."""

import os
import pathlib
import shutil
import time

from rich import filesize

from rfn_jax.core import checks, errors, io, locks
from rfn_jax.core import console as console_lib
from rfn_jax.data.prepare import images as images_lib
from rfn_jax.data.prepare import location, metadata, processes, shards, writing
from rfn_jax.data.prepare import options as options_lib

MANIFEST = 'manifest.json'
CORRUPT = ('fail', 'skip')


def prepare(
    listing: images_lib.Listing,
    out: str,
    name: str,
    *,
    options: options_lib.Options | None = None,
    corrupt: str = 'fail',
    workers: int = 1,
    console: console_lib.Console | None = None,
) -> dict:
    """Makes the data set `out/name/1.0.0`, which the source `tfds` reads with `dataset=name, data_dir=out`.

    Until everything is written, it is in `out/name/1.0.0.incomplete`; a call with the same images and options continues
    there. If the data set is finished, nothing is done.

    Args:
      listing: The images.
      out: The folder of all data sets; see `location.of`.
      name: Name of the data set; see `location.of`.
      options: How images are stored.
      corrupt: `'fail'`, or `'skip'` to leave out images that cannot be decoded.
      workers: Number of processes that work on shards; the result does not depend on it.
      console: Where to report progress.

    Returns:
      The manifest, which is also in `manifest.json`: the number of examples by split and class, the shards with their
      hashes, the options, the images that were left out, and the versions of the libraries.

    Raises:
      InputError: An argument is wrong; an image cannot be read or, with `corrupt='fail'`, decoded; the output cannot be
        written or was made from other images or with other options.
      RunError: Another process is making it, or a worker process died.
    """
    console = console_lib.Console() if console is None else console
    options = options_lib.Options() if options is None else options
    checks.one_of('value of corrupt:', corrupt, CORRUPT)
    checks.integer('workers', workers, at_least=1)
    final = location.of(out, name)
    location.check_outside(final, listing)
    incomplete = final.with_name(f'{final.name}.incomplete')
    lock = final.with_name(f'{final.name}.lock')
    plan = metadata.plan(listing, options)
    with writing.to(final):
        io.check_writable(lock)
    with locks.held(lock):
        if final.exists():
            return _finished(final, incomplete, plan, corrupt, console)
        if (incomplete / 'plan.json').exists():
            metadata.check_same(incomplete, io.read_json_object(incomplete / 'plan.json'), plan)
        settings = {'num_classes': len(listing.classes), 'options': options, 'skip_corrupt': corrupt == 'skip'}
        by_split = {
            split: shards.split_into_shards(name, split, images, str(incomplete), **settings)
            for split, images in listing.splits.items()
        }
        parts = _write_missing(name, by_split, incomplete, plan, workers, console)
        data = incomplete / 'data'
        manifest = metadata.manifest(name, plan, listing, {s: [parts[x.file] for x in by_split[s]] for s in by_split})
        with writing.to(final):
            metadata.write_tfds(data, name, final.name, listing.classes, options.channels, manifest)
            io.write_json(data / MANIFEST, manifest)
            os.replace(data, final)
            shutil.rmtree(incomplete)
        _report(final, manifest, console)
        return manifest


def _finished(
    final: pathlib.Path, incomplete: pathlib.Path, plan: dict, corrupt: str, console: console_lib.Console
) -> dict:
    """The manifest of a data set that is finished already, after checking that it is the one that is wanted."""
    if not (final / MANIFEST).exists():
        raise errors.InputError(
            f'{final} already exists, and rfn-jax prepare did not make it: choose another name or out'
        )
    manifest = io.read_json_object(final / MANIFEST)
    metadata.check_same(final, manifest, plan)
    for split in manifest['splits'].values():
        for shard in split['shards']:
            path = final / shard['file']
            if not path.exists() or path.stat().st_size != shard['bytes']:
                raise errors.InputError(f'{path} is missing or damaged: delete {final}, and prepare it again')
    if manifest['skipped'] and corrupt == 'fail':
        raise errors.InputError(
            f'{final} is finished, but without {len(manifest["skipped"])} damaged images, such as '
            f'{manifest["skipped"][0]["file"]!r}; accept that with --corrupt=skip, or choose another --out'
        )
    shutil.rmtree(incomplete, ignore_errors=True)  # left by a run that was killed right after the last step
    console.info(f'{final} is already finished')
    _report(final, manifest, console)
    return manifest


def _write_missing(
    name: str,
    by_split: dict[str, list[shards.Shard]],
    incomplete: pathlib.Path,
    plan: dict,
    workers: int,
    console: console_lib.Console,
) -> dict[str, dict]:
    """Writes the shards that are missing; returns what is known about each of them, by the name of its file."""
    every = [shard for of_split in by_split.values() for shard in of_split]
    parts = {shard.file: part for shard in every if (part := shards.finished(shard))}
    missing = [shard for shard in every if shard.file not in parts]
    _check_space(incomplete, missing)
    with writing.to(incomplete):
        shutil.rmtree(incomplete / 'temporary', ignore_errors=True)
        for folder in ('data', 'parts', 'temporary'):
            (incomplete / folder).mkdir(parents=True, exist_ok=True)
        io.write_json(incomplete / 'plan.json', plan)
    counts = {shard.file: len(shard.images) for shard in missing}
    start, done = time.monotonic(), 0
    with console.task(f'prepare {name}, shards', len(every), done=len(parts)) as advance:
        for part in processes.results(shards.write, missing, workers):
            parts[part['file']] = part
            done += counts[part['file']]
            for skipped in part['skipped']:
                console.info(f'skipped: {skipped["reason"]} (split {skipped["split"]})')
            advance(images=done, images_per_s=done / max(time.monotonic() - start, 1e-9))
    return parts


def _check_space(incomplete: pathlib.Path, missing: list[shards.Shard]) -> None:
    """Checks that images that are stored as they are fit on the disk."""
    needed = sum(int(shard.images.sizes.sum()) for shard in missing if shard.options.max_side is None)
    free = shutil.disk_usage(incomplete.parent).free
    if needed > free:
        raise errors.InputError(
            f'{incomplete.parent} has {filesize.decimal(free)} free, but {filesize.decimal(needed)} are needed: free '
            'space, choose another --out, or shrink the images with --max-side'
        )


def _report(final: pathlib.Path, manifest: dict, console: console_lib.Console) -> None:
    for name, split in manifest['splits'].items():
        console.info(
            f'{name}: {split["examples"]} images in {sum(count > 0 for count in split["classes"].values())} classes, '
            f'{len(split["shards"])} shards'
        )
    if manifest['skipped']:
        console.info(f'{len(manifest["skipped"])} damaged images were left out; {MANIFEST} lists them')
    size = '' if manifest['image_shape'] else ", 'image_size': 224"
    console.info(
        f"{final}: a config reads it with {{'name': 'tfds', 'dataset': '{final.parent.name}', 'data_dir': "
        f"'{final.parent.parent}'{size}}}"
    )
