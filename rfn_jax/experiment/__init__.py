"""Experiments: from a config to results, in stages, each of which can run alone and is skipped once it is done.

plan, workdir = experiment.open_workdir(config.to_dict(), 'runs/digits', Console())
experiment.train(plan, workdir)     # targets, validation targets, surrogates
experiment.select(plan, workdir)    # chooses the early-stopping epochs on validation data
experiment.craft(plan, workdir)     # adversarial sets on test images
experiment.measure(plan, workdir)   # success rates, which the report reads
experiment.landscape(plan, workdir) # sharpness and curvature, if the config has a section for it

Each stage reads the files that the earlier stages wrote, and writes its own.
"""

from rfn_jax.experiment.crafting import craft
from rfn_jax.experiment.layout import check_last_config, is_workdir, last_config
from rfn_jax.experiment.measurement import measure
from rfn_jax.experiment.networks import train
from rfn_jax.experiment.opening import open_workdir
from rfn_jax.experiment.pinning import pinned
from rfn_jax.experiment.plan import Plan
from rfn_jax.experiment.reading import read
from rfn_jax.experiment.selection import select
from rfn_jax.experiment.surveying import landscape
from rfn_jax.experiment.workdir import Workdir

__all__ = [
    'Plan', 'Workdir', 'check_last_config', 'craft', 'is_workdir', 'landscape', 'last_config', 'measure', 'open_workdir',
    'pinned', 'read', 'select', 'train',
]  # fmt: skip
