"""A small experiment on digits: seconds instead of minutes, every stage of the real one. Also a config file of its own."""

from rfn_jax.configs import digits


def get_config():
    config = digits.get_config()
    config.seeds = 2
    config.optim.update(epochs=4, decay_epochs=(3,), batch_size=40)
    config.surrogates = {'resnet': {'name': 'resnet', 'stage_sizes': (1, 1), 'widths': (8, 16)}}
    quick = {'epochs': 4, 'decay_epochs': (3,)}
    config.targets = {
        'mlp': {'model': {'name': 'mlp', 'widths': (64,)}, 'optim': quick},
        'vgg': {'model': {'name': 'vgg', 'stages': ((8,), (16,))}, 'optim': quick},
    }
    config.validation_targets = {'mlp_deep': {'model': {'name': 'mlp', 'widths': (32, 32)}, 'optim': quick}}
    config.attacks = {
        'bim': {'name': 'bim', 'eps': 0.2, 'steps': 3},
        'mi': {'name': 'mi_fgsm', 'eps': 2.0, 'steps': 2, 'norm': 'l2'},
    }
    config.validation = {'attack': {'name': 'bim', 'eps': 0.2, 'steps': 2}, 'examples': 50, 'every_epochs': 2}
    config.evaluation = {'examples': 60, 'batch_size': 32}
    return config
