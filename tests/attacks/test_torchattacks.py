"""The `torchattacks` preset against torchattacks 3.5.1 itself, on one small network in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import attacks

torch = pytest.importorskip('torch')
torchattacks = pytest.importorskip('torchattacks')


@pytest.fixture(scope='module', autouse=True)
def double_precision():
    """Makes the signs of gradients near zero agree; in float32, some of them would flip."""
    torch.set_num_threads(1)  # otherwise its threads and those of XLA would wait for each other
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope='module')
def theirs(problem):
    weights = {name: torch.from_numpy(np.array(value, np.float64)) for name, value in problem.variables.items()}

    class Network(torch.nn.Module):
        def forward(self, x):
            x = x - 0.5
            for name, stride in (('first', 1), ('second', 2)):
                x = torch.tanh(torch.nn.functional.conv2d(x, weights[name].permute(3, 2, 0, 1), stride=stride))
            return x.permute(0, 2, 3, 1).flatten(1) @ weights['dense']

    network = Network().eval()
    # torchattacks asks the parameters for their device.
    network.register_parameter('unused', torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    return network


@pytest.fixture(scope='module')
def ours(problem):
    return jax.tree_util.Partial(problem.apply, jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), problem.variables))


def draw(theirs, count):
    images = np.random.default_rng(1).uniform(size=(count, 6, 6, 3))
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
    'fgsm': torchattacks.FGSM,
    'bim': torchattacks.BIM,
    'mi_fgsm': torchattacks.MIFGSM,
    'ni_fgsm': torchattacks.NIFGSM,
    'si_ni_fgsm': torchattacks.SINIFGSM,
    'pi_fgsm': patchwise,
}
STOCHASTIC = {
    'pgd': torchattacks.PGD,
    'vmi_fgsm': torchattacks.VMIFGSM,
    'vni_fgsm': torchattacks.VNIFGSM,
    'di_fgsm': torchattacks.DIFGSM,
}


@pytest.mark.parametrize('name', DETERMINISTIC)
def test_deterministic_attacks_give_the_same_images(theirs, ours, name):
    images, labels = draw(theirs, 32)
    expected = attacked_by_theirs(DETERMINISTIC[name](theirs), images, labels)
    found = attacks.make(name, preset='torchattacks')(ours, jnp.asarray(images), labels, jax.random.key(0))
    assert np.abs(expected - images).max() > 1 / 255
    np.testing.assert_allclose(np.asarray(found) * 255, expected * 255, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize('name', STOCHASTIC)
def test_stochastic_attacks_succeed_as_often(theirs, ours, name):
    images, labels = draw(theirs, 1000)
    eps = 2 / 255  # keeps success below 100 %, so that a difference would show
    torch.manual_seed(0)
    expected = attacked_by_theirs(STOCHASTIC[name](theirs, eps=eps), images, labels)
    attack = attacks.make(name, preset='torchattacks', eps=eps)
    found = np.asarray(attack(ours, jnp.asarray(images), labels, jax.random.key(0)))

    def success(adversarial):
        return float(np.mean(np.argmax(ours(jnp.asarray(adversarial)), axis=1) != labels))

    assert 0.1 < success(expected) < 0.9
    assert success(found) == pytest.approx(success(expected), abs=0.01)
