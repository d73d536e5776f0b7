"""What keeps tests quick: options with which attacks take few gradients of small images, and a mark for slow cases."""

import pytest

CHEAP = {
    'vmi_fgsm': {'neighbors': 2},
    'vni_fgsm': {'neighbors': 2},
    'si_ni_fgsm': {'copies': 2},
    'admix': {'mixes': 2, 'scales': 2},
    'ssa': {'copies': 2},
    'bsr': {'copies': 2, 'blocks': 2},
    'pgn': {'neighbors': 2},
    'emi_fgsm': {'samples': 3, 'radius': 1.0},
    'rap': {'inner_steps': 2, 'late_start': 1, 'radius': 4 / 255},
    'di_fgsm': {'rate': 1.3},
    'ti_fgsm': {'size': 3},
    'linbp': {'from_layer': 'layer2_0'},
    'ila': {'layer': 'layer1_0', 'first_steps': 2},
    'mi+di+ti+sgm': {'options': {'di': {'rate': 1.3}, 'ti': {'size': 3}}},
    'ni+vt+si+ghost': {'options': {'vt': {'neighbors': 2}, 'si': {'copies': 2}}},
    'shift+rap': {'options': {'shift': {'copies': 2}, 'rap': {'inner_steps': 1}}},
}


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)
