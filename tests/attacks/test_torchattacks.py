"""The `torchattacks` preset against torchattacks 3.5.1 itself, on one small network in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import attacks

torch = pytest.importorskip('torch')
torchattacks = pytest.importorskip('torchattacks')

SIZE, CLASSES = 8, 4


@pytest.fixture(scope='module', autouse=True)
def double_precision():
    """Makes the signs of gradients near zero agree; in float32, some of them would flip."""
    torch.set_num_threads(1)  # otherwise its threads and those of XLA would wait for each other
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope='module')
def weights():
    generator = np.random.default_rng(0)
    return {
        'first': generator.normal(size=(6, 3, 3, 3)) / 3,
        'second': generator.normal(size=(8, 6, 3, 3)) / 5,
        'dense': generator.normal(size=(8 * (SIZE - 4) ** 2, CLASSES)) / 6,
    }


@pytest.fixture(scope='module')
def theirs(weights):
    class Network(torch.nn.Module):
        def forward(self, x):
            for name in ('first', 'second'):
                x = torch.tanh(torch.nn.functional.conv2d(x - 0.5, torch.from_numpy(weights[name])))
            return x.flatten(1) @ torch.from_numpy(weights['dense'])

    network = Network().eval()
    # torchattacks asks the parameters for their device.
    network.register_parameter('unused', torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    return network


@pytest.fixture(scope='module')
def ours(weights):
    def logits(weights, x):
        for name in ('first', 'second'):
            kernel = weights[name].transpose(2, 3, 1, 0)
            x = jax.lax.conv_general_dilated(
                x - 0.5, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
            )
            x = jnp.tanh(x)
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ weights['dense']

    return jax.tree_util.Partial(logits, jax.tree.map(jnp.asarray, weights))


def draw(theirs, count):
    images = np.random.default_rng(1).uniform(size=(count, SIZE, SIZE, 3))
    with torch.no_grad():
        labels = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).argmax(1).numpy()
    return images, labels.astype(np.int32)


def attacked_by_theirs(attack, images, labels):
    found = attack(torch.from_numpy(images.transpose(0, 3, 1, 2)), torch.from_numpy(labels.astype(np.int64)))
    return found.detach().numpy().transpose(0, 2, 3, 1)


def test_the_networks_are_the_same(theirs, ours):
    images, _ = draw(theirs, 8)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(ours(jnp.asarray(images)), expected, atol=1e-12)


def patchwise(network):
    attack = torchattacks.PIFGSM(network)
    single = attack.project_kern
    attack.project_kern = lambda size: (single(size)[0].double(), single(size)[1])  # its kernel is float32 only
    return attack


DETERMINISTIC = {
    'fgsm': lambda network: torchattacks.FGSM(network),
    'bim': lambda network: torchattacks.BIM(network),
    'mi_fgsm': lambda network: torchattacks.MIFGSM(network),
    'ni_fgsm': lambda network: torchattacks.NIFGSM(network),
    'si_ni_fgsm': lambda network: torchattacks.SINIFGSM(network),
    'pi_fgsm': patchwise,
}


@pytest.mark.parametrize('name', DETERMINISTIC)
def test_deterministic_attacks_give_the_same_images(theirs, ours, name):
    images, labels = draw(theirs, 32)
    expected = attacked_by_theirs(DETERMINISTIC[name](theirs), images, labels)
    found = attacks.make(name, preset='torchattacks')(ours, jnp.asarray(images), labels, jax.random.key(0))
    assert np.abs(expected - images).max() > 1 / 255
    np.testing.assert_allclose(np.asarray(found) * 255, expected * 255, atol=1e-4, rtol=0)


# A small eps keeps success below 100 %, so that a difference would show.
STOCHASTIC = {
    'pgd': lambda network, eps: torchattacks.PGD(network, eps=eps),
    'vmi_fgsm': lambda network, eps: torchattacks.VMIFGSM(network, eps=eps),
    'vni_fgsm': lambda network, eps: torchattacks.VNIFGSM(network, eps=eps),
    'di_fgsm': lambda network, eps: torchattacks.DIFGSM(network, eps=eps),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', STOCHASTIC)
def test_stochastic_attacks_succeed_as_often(theirs, ours, name):
    images, labels = draw(theirs, 1000)
    eps = 2 / 255
    torch.manual_seed(0)
    expected = attacked_by_theirs(STOCHASTIC[name](theirs, eps), images, labels)
    attack = attacks.make(name, preset='torchattacks', eps=eps)
    found = np.asarray(attack(ours, jnp.asarray(images), labels, jax.random.key(0)))

    def success(adversarial):
        return float(np.mean(np.argmax(ours(jnp.asarray(adversarial)), axis=1) != labels))

    assert 0.1 < success(expected) < 0.9
    assert success(found) == pytest.approx(success(expected), abs=0.01)
