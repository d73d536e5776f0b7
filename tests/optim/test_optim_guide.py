import doctest
import importlib
import pathlib
import re

import jax
import numpy as np
import pytest

import rfn_jax

GUIDE = (pathlib.Path(rfn_jax.__file__).parent / 'optim' / 'README.md').read_text()


@pytest.mark.slow
def test_the_blocks_of_the_guide_run_one_after_another(capsys):
    names = {}
    blocks = re.findall(r'```python\n(.*?)```', GUIDE, re.DOTALL)
    assert len(blocks) == 4
    for code in blocks:
        exec(code, names)
    gradient_norm, perturbation_norm = map(float, capsys.readouterr().out.split())
    assert gradient_norm > 0
    np.testing.assert_allclose(perturbation_norm, 0.4, rtol=1e-6)
    assert int(names['state'].step) == 1
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(names['params']))
    difference = jax.tree.map(lambda a, b: float(abs(a - b).max()), names['averaged'], names['params'])
    assert max(jax.tree.leaves(difference)) > 0


def test_every_minimizer_is_in_the_table_of_the_guide():
    assert [name for name in rfn_jax.optim.MINIMIZERS if f'`{name}`' not in GUIDE] == ['sgd']


@pytest.mark.parametrize('module', ['sam', 'averages', 'diagnostics'])
def test_the_examples_of_the_docstrings_run(module):
    results = doctest.testmod(importlib.import_module(f'rfn_jax.optim.{module}'))
    assert results.attempted > 0
    assert results.failed == 0
