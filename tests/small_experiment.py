"""A small experiment on digits: seconds instead of minutes, every stage of the real one. Also a config file of its own."""

from rfn_jax import experiment
from rfn_jax.configs import digits
from rfn_jax.core import console

STAGES = (experiment.train, experiment.select, experiment.craft, experiment.measure)


def get_config():
    config = digits.get_config()
    config.seeds = 2
    config.optim.update(epochs=4, decay_epochs=(3,), batch_size=40, learning_rate=0.5)
    config.surrogates = {'small': {'name': 'mlp', 'widths': (32,)}}
    quick = {'epochs': 4, 'decay_epochs': (3,)}
    config.targets = {
        'mlp': {'model': {'name': 'mlp', 'widths': (64,)}, 'optim': quick},
        'vgg': {'model': {'name': 'vgg', 'stages': ((8,), (16,))}, 'optim': quick},
    }
    config.validation_targets = {'mlp_deep': {'model': {'name': 'mlp', 'widths': (32, 32)}, 'optim': quick}}
    config.attacks = {
        'bim': {'name': 'bim', 'eps': 0.4, 'steps': 3},
        'mi': {'name': 'mi_fgsm', 'eps': 3.0, 'steps': 2, 'norm': 'l2'},
    }
    config.validation = {'attack': {'name': 'bim', 'eps': 0.4, 'steps': 2}, 'examples': 50, 'every_epochs': 2}
    config.evaluation = {'examples': 60, 'batch_size': 32}
    return config


def opening(config, directory):
    """The plan and the work directory, from a `ConfigDict` or nested dictionaries."""
    plain = config if isinstance(config, dict) else config.to_dict()
    return experiment.open_workdir(plain, directory, console.Console())


def run(config, directory, stages=STAGES):
    opened = opening(config, directory)
    for stage in stages:
        stage(*opened)
