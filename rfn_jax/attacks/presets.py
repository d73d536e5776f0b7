"""The defaults of papers and of other libraries, so that their results can be compared with ours.

`paper`: the defaults of the attack's own paper or of its authors' code on ImageNet, as far as they could be found: mostly
L-infinity, eps = 16/255, 10 steps of eps/10.

`transferattack`: https://github.com/Trustworthy-AI-Group/TransferAttack at 2663e4a, `transferattack/<kind>/<file>.py`: eps =
16/255, 10 steps of 1.6/255, decay 1. Its SIM is MI with scale copies and without look-ahead: the components `'mi+si'`.

`torchattacks`: https://github.com/Harry24k/adversarial-attacks-pytorch 3.5.1, `torchattacks/attacks/<file>.py`: eps = 8/255,
10 steps of 2/255. Its TIFGSM includes DI and has no momentum: the components `'ti+di'`.
"""

from collections.abc import Mapping

from rfn_jax.core import errors

_PAPER = {'eps': 16 / 255, 'step_size': 1.6 / 255, 'steps': 10}
_TRANSFERATTACK = {'eps': 16 / 255, 'step_size': 1.6 / 255, 'steps': 10}
_TORCHATTACKS = {'eps': 8 / 255, 'step_size': 2 / 255, 'steps': 10}

PRESETS: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    'paper': {
        'fgsm': {'eps': 16 / 255},
        'bim': {'eps': 16 / 255, 'step_size': 1 / 255, 'steps': 20},  # min(eps + 4, 1.25 eps) steps, each of 1/255
        'pgd': {'eps': 8 / 255, 'step_size': 2 / 255, 'steps': 7},  # Madry et al. 2018, CIFAR-10
        'mi_fgsm': {**_PAPER, 'decay': 1.0},
        'ni_fgsm': {**_PAPER, 'decay': 1.0},
        'vmi_fgsm': {**_PAPER, 'beta': 1.5, 'neighbors': 20},
        'vni_fgsm': {**_PAPER, 'beta': 1.5, 'neighbors': 20, 'around': 'image'},  # as in the authors' code
        'di_fgsm': {  # the authors' attack.py
            'eps': 16 / 255,
            'step_size': 1 / 255,
            'steps': 20,
            'decay': 1.0,
            'rate': 330 / 299,
            'probability': 0.5,
            'method': 'nearest',
        },
        'ti_fgsm': {**_PAPER, 'size': 15, 'nsig': 3.0, 'kind': 'gaussian'},
        'si_ni_fgsm': {**_PAPER, 'copies': 5},
        'admix': {**_PAPER, 'mixes': 3, 'scales': 5, 'portion': 0.2},
        'ssa': {**_PAPER, 'copies': 20, 'rho': 0.5, 'sigma': 16 / 255},
        'bsr': {**_PAPER, 'copies': 20, 'blocks': 2, 'max_angle': 24.0},
        'pgn': {**_PAPER, 'beta': 3.0, 'neighbors': 20, 'balance': 0.5},
        'emi_fgsm': {**_PAPER, 'samples': 11, 'radius': 7.0},
        'rap': {
            'eps': 16 / 255,
            'step_size': 2 / 255,
            'steps': 400,
            'decay': 0.0,
            'radius': 16 / 255,
            'inner_step_size': 2 / 255,
            'inner_steps': 8,
            'late_start': 100,
        },
        'pi_fgsm': {**_PAPER, 'amplification': 10.0, 'kernel_size': 3},
        # The authors start from a random point, this preset from the original.
        'sgm': {'eps': 16 / 255, 'step_size': 2 / 255, 'steps': 10, 'decay': 0.0, 'gamma': 0.2},
        'apgd': {'eps': 8 / 255, 'steps': 100},  # Croce and Hein 2020, CIFAR-10
    },
    'transferattack': {
        'fgsm': {'eps': 16 / 255},  # gradient/fgsm.py
        'bim': _TRANSFERATTACK,  # gradient/ifgsm.py
        'mi_fgsm': {**_TRANSFERATTACK, 'decay': 1.0},  # gradient/mifgsm.py
        'ni_fgsm': {**_TRANSFERATTACK, 'decay': 1.0},  # gradient/nifgsm.py
        'vmi_fgsm': {**_TRANSFERATTACK, 'beta': 1.5, 'neighbors': 20},  # gradient/vmifgsm.py
        'vni_fgsm': {**_TRANSFERATTACK, 'beta': 1.5, 'neighbors': 20, 'around': 'inner'},  # gradient/vnifgsm.py
        'emi_fgsm': {**_TRANSFERATTACK, 'samples': 11, 'radius': 7.0},  # gradient/emifgsm.py
        'pgn': {**_TRANSFERATTACK, 'beta': 3.0, 'neighbors': 20, 'balance': 0.5},  # gradient/pgn.py
        'rap': {  # gradient/rap.py
            'eps': 16 / 255,
            'step_size': 2 / 255,
            'steps': 400,
            'decay': 1.0,
            'late_start': 100,
            'radius': 16 / 255,
            'inner_step_size': 2 / 255,
            'inner_steps': 8,
        },
        'di_fgsm': {**_TRANSFERATTACK, 'rate': 1.1, 'probability': 0.5},  # input_transformation/dim.py
        'ti_fgsm': {**_TRANSFERATTACK, 'size': 15, 'nsig': 3.0, 'kind': 'gaussian'},  # input_transformation/tim.py
        'admix': {  # input_transformation/admix.py
            **_TRANSFERATTACK,
            'mixes': 3,
            'scales': 5,
            'portion': 0.2,
            'other_classes': False,
        },
        'ssa': {**_TRANSFERATTACK, 'copies': 20, 'rho': 0.5, 'sigma': 16 / 255},  # input_transformation/ssm.py
        'bsr': {**_TRANSFERATTACK, 'copies': 20, 'blocks': 3, 'max_angle': 24.0},  # input_transformation/bsr.py
        'pi_fgsm': {**_TRANSFERATTACK, 'amplification': 10.0, 'kernel_size': 3},  # gradient/pifgsm.py
        'ila': {'eps': 16 / 255, 'step_size': 1.6 / 255, 'first_steps': 10, 'steps': 10},  # advanced_objective/ila.py
        'sgm': {**_TRANSFERATTACK, 'gamma': 0.2},  # model_related/sgm.py
        'ghost': {**_TRANSFERATTACK, 'skip_scale': 0.22},  # model_related/ghost.py, ResNet-50
    },
    'torchattacks': {
        'fgsm': {'eps': 8 / 255},  # fgsm.py
        'bim': _TORCHATTACKS,  # bim.py
        'pgd': _TORCHATTACKS,  # pgd.py
        'mi_fgsm': {**_TORCHATTACKS, 'decay': 1.0},  # mifgsm.py
        'ni_fgsm': {**_TORCHATTACKS, 'decay': 1.0},  # nifgsm.py
        'vmi_fgsm': {**_TORCHATTACKS, 'decay': 1.0, 'beta': 1.5, 'neighbors': 5},  # vmifgsm.py
        'vni_fgsm': {  # vnifgsm.py: neighbors without look-ahead
            **_TORCHATTACKS,
            'decay': 1.0,
            'beta': 1.5,
            'neighbors': 5,
            'around': 'image',
        },
        'di_fgsm': {**_TORCHATTACKS, 'decay': 0.0, 'rate': 0.9, 'probability': 0.5},  # difgsm.py
        'si_ni_fgsm': {**_TORCHATTACKS, 'decay': 1.0, 'copies': 5},  # sinifgsm.py
        'apgd': {'eps': 8 / 255, 'steps': 10},  # apgd.py
        'pi_fgsm': {  # pifgsm.py: steps of eps/10, amplified ten times
            'eps': 16 / 255,
            'step_size': 1.6 / 255,
            'steps': 10,
            'amplification': 10.0,
            'kernel_size': 3,
        },
    },
}


def options(preset: str, attack: str) -> dict[str, object]:
    """Returns the options of an attack in a preset.

    Raises:
      InputError: The preset is unknown or has no such attack.
    """
    if preset not in PRESETS:
        raise errors.unknown_name('preset', preset, PRESETS)
    if attack not in PRESETS[preset]:
        raise errors.unknown_name(f'attack of the preset {preset!r}:', attack, PRESETS[preset])
    return dict(PRESETS[preset][attack])
