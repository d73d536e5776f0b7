"""Every attack on the CIFAR-10 surrogates of `cifar10_cpu.py`, SGD against RFN.

    TFDS_DATA_DIR=... rfn-jax run --config=configs/cifar10_cpu_attacks.py --workdir=runs/cifar10_cpu_attacks

The resulting table is in `rfn_jax/attacks/README.md`. The training is that of `cifar10_cpu.py`; the attacks take 10 steps of
eps/5, with fewer copies and neighbors than in their papers, so that two CPU cores suffice.
"""

import ml_collections

from rfn_jax.configs import cifar10_cpu

ATTACKS = {
    'fgsm': {},
    'bim': {},
    'pgd': {},
    'mi_fgsm': {},
    'ni_fgsm': {},
    'pi_fgsm': {'amplification': 2.5},
    'vmi_fgsm': {'neighbors': 5},
    'vni_fgsm': {'neighbors': 5},
    'emi_fgsm': {'samples': 5},
    'pgn': {'neighbors': 5},
    'rap': {'radius': 8 / 255, 'inner_step_size': 2 / 255, 'inner_steps': 4},
    'di_fgsm': {},
    'ti_fgsm': {'size': 5},
    'si_ni_fgsm': {'copies': 5},
    'admix': {'mixes': 2, 'scales': 3},
    'ssa': {'copies': 5},
    'bsr': {'copies': 5},
    'sgm': {'gamma': 0.5},
    'ghost': {},
    'linbp': {'from_layer': 'layer2_0'},
    'ila': {'layer': 'layer2_0', 'first_steps': 5, 'steps': 5},
    'apgd': {'steps': 20},
    'mi_di_ti_sgm': {'name': 'mi+di+ti+sgm', 'options': {'ti': {'size': 5}, 'sgm': {'gamma': 0.5}}},
}


def get_config() -> ml_collections.ConfigDict:
    """The config of `cifar10_cpu.py` with all attacks, on 100 images, without early stopping."""
    config = cifar10_cpu.get_config()
    config.name = 'cifar10_cpu_attacks'
    config.early_stopping = {}
    config.baselines = ('sgd',)
    eps = 8 / 255
    config.attacks = {}
    for name, options in ATTACKS.items():
        steps = {} if name == 'fgsm' else {'steps': 10}
        sizes = {} if name in ('fgsm', 'apgd') else {'step_size': eps / 5}
        config.attacks[name] = {'name': name, 'eps': eps, **steps, **sizes, **options}
    config.evaluation.update(examples=100, batch_size=100)
    return config
