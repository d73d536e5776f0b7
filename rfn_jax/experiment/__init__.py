"""Experiments: from a config to results, in stages that can be run alone and that are skipped when they are done.

ctx = experiment.open_workdir(config.to_dict(), 'runs/digits', Console())
experiment.train(ctx)     # targets, validation targets, surrogates
experiment.craft(ctx)     # chooses the early-stopping epoch on validation data, then crafts on test images
experiment.measure(ctx)   # success rates; the report reads what it writes
"""

from rfn_jax.experiment.context import Context, open_workdir
from rfn_jax.experiment.crafting import craft
from rfn_jax.experiment.measurement import measure
from rfn_jax.experiment.networks import chosen, train
from rfn_jax.experiment.plan import Plan, read
from rfn_jax.experiment.saved import saved_classifier
from rfn_jax.experiment.validation import validate

__all__ = [
    'Context',
    'Plan',
    'chosen',
    'craft',
    'measure',
    'open_workdir',
    'read',
    'saved_classifier',
    'train',
    'validate',
]
