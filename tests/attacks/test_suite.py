"""Invariants of all attacks: every recipe, and other combinations of components, on small residual networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import attacks, models
from rfn_jax.core import losses, rng, sharding
from rfn_jax.core.errors import InputError

EPS = 8 / 255
N, SHAPE, CLASSES = 64, (8, 8, 3), 4

OPTIONS = {
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
NAMES = [*attacks.ATTACKS, 'mi+di+ti+sgm', 'ni+vt+si+ghost', 'shift+rap']
IN_BFLOAT16 = ('bim', 'apgd', 'mi+di+ti+sgm')  # on a surrogate that computes in bfloat16
ONLY_LINF = {'pi_fgsm'}
NOT_TARGETED = {'ila'}


@functools.cache
def make(name, eps=EPS, norm='linf', steps=3, **more):
    options = {**OPTIONS.get(name, {}), **more}
    if name != 'fgsm':
        options['steps'] = steps
    if name not in ('fgsm', 'apgd'):
        options['step_size'] = eps / 2
    return attacks.make(name, eps=eps, norm=norm, **options)


@pytest.fixture(scope='module')
def bench():
    """A trained network, another checkpoint of it, images that it classifies correctly with their labels, keys and a pool."""
    module = models.MODELS.make('resnet', num_classes=CLASSES, stage_sizes=(1, 1), widths=(4, 6))
    generator = np.random.default_rng(0)
    prototypes = generator.uniform(0.2, 0.8, size=(CLASSES, *SHAPE))
    labels = generator.integers(CLASSES, size=N).astype(np.int32)
    noise = 0.08 * generator.normal(size=(N, *SHAPE))
    images = np.clip(prototypes[labels] + noise, 0, 1).astype(np.float32)
    classifiers = [
        models.initialize(module, rng.key_for(seed, 'suite'), SHAPE, num_classes=CLASSES, mean=(0.5,), std=(0.25,))
        for seed in (0, 1)
    ]

    @jax.jit
    def descend(classifier):
        def loss_fn(params):
            variables = {**classifier.variables, 'params': params}
            return jnp.mean(losses.cross_entropy(classifier.replace(variables=variables)(images), labels))

        grads = jax.grad(loss_fn)(classifier.variables['params'])
        params = jax.tree.map(lambda w, g: w - 0.1 * g, classifier.variables['params'], grads)
        return classifier.replace(variables={**classifier.variables, 'params': params})

    for _ in range(60):
        classifiers = [descend(classifier) for classifier in classifiers]
    assert np.mean(np.argmax(classifiers[0](images), -1) == labels) > 0.95
    keys = rng.example_keys(jax.random.key(7), np.arange(N) * 3)
    return classifiers[0], classifiers[1], images, labels, keys, (images[:8], labels[:8])


def run(attack, surrogate, bench, rows=slice(None), **more):
    _, _, images, labels, keys, pool = bench
    more = {'pool': pool, **more} if attack.needs_pool else more
    return np.asarray(attack(surrogate, images[rows], labels[rows], keys[rows], **more))


def size(change, norm):
    change = np.asarray(change, np.float64)
    return np.abs(change).max(axis=(1, 2, 3)) if norm == 'linf' else np.sqrt(np.sum(change**2, axis=(1, 2, 3)))


def norms(name):
    return ['linf'] if name in ONLY_LINF else ['linf', 'l2']


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'dtype'), [*((name, 'float32') for name in NAMES), *((name, 'bfloat16') for name in IN_BFLOAT16)]
)
def test_the_images_stay_in_the_budget_and_do_not_depend_on_batch_order_or_devices(bench, name, dtype):
    norm = norms(name)[-1]  # l2 if supported, since there no sign can flip due to rounding
    eps = EPS if norm == 'linf' else 0.5
    attack, images = make(name, eps, norm), bench[2]
    surrogate = bench[0].replace(module=bench[0].module.clone(dtype=jnp.dtype(dtype)))
    whole = run(attack, surrogate, bench)
    assert whole.shape == images.shape
    assert whole.dtype == np.float32
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert np.all(size(whole - images, norm) <= eps + 1e-6)
    assert np.mean(size(whole - images, norm) > eps / 10) > 0.9

    close = functools.partial(np.testing.assert_allclose, atol=2e-5 if norm == 'l2' else 1e-6, rtol=0)
    for start in (0, 7, 57):
        close(run(attack, surrogate, bench, slice(start, start + 7)), whole[start : start + 7])
    close(run(attack, surrogate, bench, slice(5, 6)), whole[5:6])
    close(run(attack, surrogate, bench, np.arange(N)[::-1]), whole[::-1])

    mesh = sharding.data_mesh()
    assert mesh.size == 8
    placed = (
        *bench[:2],
        *sharding.shard_batch(bench[2:4], mesh),
        jax.device_put(bench[4], sharding.batch_sharding(mesh)),
    )
    spread = run(attack, jax.device_put(surrogate, sharding.replicated(mesh)), (*placed, bench[5]))
    close(spread, whole)


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_checkpoints_share_a_compilation_and_jit_changes_nothing(bench, name):
    attack = make(name)
    first = run(attack, bench[0], bench, slice(0, 8))
    with jax.no_tracing():
        other = run(attack, bench[1], bench, slice(0, 8))
    assert np.any(first != other)
    under_jit = jax.jit(lambda c, x, y, k: attack(c, x, y, k, **pool_of(attack, bench)))
    again = under_jit(bench[0], bench[2][:8], bench[3][:8], bench[4][:8])
    # A sign may flip where the gradient is near zero, since the program was compiled differently.
    assert np.mean(np.abs(np.asarray(again) - first) < 1e-6) > 0.99


def pool_of(attack, bench):
    return {'pool': bench[5]} if attack.needs_pool else {}


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_success_rises_with_eps_and_more_steps_stay_in_the_budget(bench, name):
    def success(attack):
        adversarial = run(attack, bench[0], bench)
        return np.mean(np.argmax(bench[0](adversarial), -1) != bench[3]), size(adversarial - bench[2], 'linf').max()

    small, reach_small = success(make(name, 2 / 255))
    large, reach_large = success(make(name, 24 / 255, steps=3 if name == 'fgsm' else 6))
    assert large > small
    assert reach_small <= 2 / 255 + 1e-6
    assert reach_large <= 24 / 255 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in NAMES if name not in NOT_TARGETED])
def test_targeted_attacks_lower_the_loss_to_the_target(bench, name):
    attack = make(name, 16 / 255, targeted=True)
    goals = (bench[3] + 1) % CLASSES
    adversarial = run(attack, bench[0], bench, target_labels=goals)

    def loss(images):
        return float(np.mean(losses.cross_entropy(bench[0](jnp.asarray(images)), goals)))

    assert loss(adversarial) < loss(bench[2])
    with pytest.raises(InputError, match='is targeted: it needs target_labels'):
        run(attack, bench[0], bench)


@pytest.mark.parametrize('name', ['bim', 'ila', 'apgd'])
def test_target_labels_for_an_untargeted_attack_are_refused(bench, name):
    with pytest.raises(InputError, match='is not targeted: it takes no target_labels'):
        run(make(name), bench[0], bench, target_labels=bench[3])


def test_restarts_keep_the_best_run_of_each_example(bench):
    def loss(images):
        return np.asarray(losses.cross_entropy(bench[0](jnp.asarray(images)), bench[3]))

    one, many = (run(make('pgd', steps=1, restarts=r), bench[0], bench) for r in (1, 4))
    assert np.mean(loss(many)) > np.mean(loss(one))
    assert np.all(size(many - bench[2], 'linf') <= EPS + 1e-6)
    assert make('pgd', restarts=4).gradient_evaluations == 4 * make('pgd').gradient_evaluations
    close = functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=0)
    close(run(make('pgd', steps=1, restarts=4), bench[0], bench, slice(3, 9)), many[3:9])


@pytest.mark.parametrize(
    ('name', 'evaluations'),
    [
        ('fgsm', 1), ('bim', 3), ('mi_fgsm', 3), ('vmi_fgsm', 9), ('vni_fgsm', 9), ('si_ni_fgsm', 6), ('admix', 12),
        ('ssa', 6), ('pgn', 12), ('emi_fgsm', 9), ('rap', 7), ('linbp', 6), ('ila', 5), ('ni+vt+si+ghost', 18),
    ],
)  # fmt: skip
def test_gradient_evaluations(name, evaluations):
    assert make(name).gradient_evaluations == evaluations
