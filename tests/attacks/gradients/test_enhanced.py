import momentum_attack
import numpy as np
import pytest
from momentum_attack import ALPHA, MU, textbook_step

from rfn_jax.attacks.gradients.enhanced import enhanced_momentum


def make(estimate, *, steps=4, **parts):
    return momentum_attack.make(estimate, steps=steps, **parts)


@pytest.mark.parametrize(('count', 'eta', 'chunk_size'), [(2, 0.5, 1), (5, 1.5, 1), (5, 1.5, 3)])
def test_it_equals_emi_fgsm_image_by_image(count, eta, chunk_size, arguments, gradient_at):
    # Wang et al. 2021 with linear sampling.
    expected = []
    for original, y in zip(arguments[1].astype(np.float64), arguments[2], strict=True):
        x, m, bar = original, np.zeros_like(original), np.zeros_like(original)
        for _ in range(4):
            g = np.zeros_like(x)
            for i in range(count):
                c = -eta + 2 * eta * i / (count - 1)
                g += gradient_at(x + c * ALPHA * bar, y) / count
            bar = g / np.mean(np.abs(g))
            m = MU * m + bar
            x = textbook_step(x, m, original)
        expected.append(x)
    found = make(enhanced_momentum(ALPHA, count, eta), chunk_size=chunk_size)(*arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
