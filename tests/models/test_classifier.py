import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.core import errors

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
IMAGES = np.random.default_rng(0).random((2, 4, 4, 3)).astype(np.float32)


def module():
    return models.MODELS.make('mlp', num_classes=5, widths=(6,))


def classifier(seed=0, **options):
    options = {'num_classes': 5, 'mean': MEAN, 'std': STD} | options
    return models.initialize(module(), jax.random.key(seed), (4, 4, 3), **options)


def test_the_normalization_is_inside():
    made = classifier()
    logits = made(IMAGES)
    assert logits.shape == (2, 5)
    by_hand = (IMAGES.astype(np.float64) - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(logits, module().apply(made.variables, np.float32(by_hand), train=False), atol=1e-5)
    assert float(jnp.abs(logits - module().apply(made.variables, IMAGES, train=False)).max()) > 0.01
    np.testing.assert_allclose(logits[:1], made(IMAGES[:1]), atol=1e-6)  # it evaluates and never trains


def test_one_number_stands_for_all_channels():
    one = classifier(mean=[0.5], std=np.array([0.25]))
    three = classifier(mean=(0.5,) * 3, std=(0.25,) * 3)
    np.testing.assert_array_equal(one(IMAGES), three(IMAGES))
    np.testing.assert_array_equal(classifier(mean=(0.0,), std=(1.0,))(IMAGES), module().apply(one.variables, IMAGES))


def test_normalize_keeps_the_type_of_the_images():
    assert models.normalize(jnp.ones((1, 2, 2, 3), jnp.bfloat16), MEAN, STD).dtype == jnp.bfloat16
    np.testing.assert_allclose(models.normalize(np.ones((1, 1, 1, 3), np.float32), MEAN, STD)[0, 0, 0], [2.5, 2.4, 1.4])


def test_it_is_a_pytree_of_its_variables():
    made = classifier()
    leaves, structure = jax.tree.flatten(made)
    assert [id(leaf) for leaf in leaves] == [id(leaf) for leaf in jax.tree.leaves(made.variables)]
    again = jax.tree.unflatten(structure, leaves)
    assert (again.module, again.num_classes, again.mean, again.std) == (module(), 5, MEAN, STD)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, made)
    assert isinstance(doubled, models.Classifier)
    kernels = [c.variables['params']['fc']['kernel'] for c in (doubled, made)]
    np.testing.assert_array_equal(kernels[0], 2 * kernels[1])


def test_checkpoints_of_one_architecture_share_one_compilation():
    traces = []

    @jax.jit
    def attack(surrogate, images):
        traces.append(None)
        return jax.grad(lambda x: surrogate(x).sum())(images)

    gradients = [np.asarray(attack(classifier(seed), IMAGES)) for seed in (0, 1, 2)]
    assert len(traces) == 1
    assert np.abs(gradients[0] - gradients[1]).max() > 1e-3
    attack(classifier(std=(0.3,)), IMAGES)  # another normalization is another program
    assert len(traces) == 2


def test_abstract_has_the_shapes_of_initialize_and_no_values():
    template = models.abstract(module(), (4, 4, 3), num_classes=5, mean=MEAN, std=STD)
    made = classifier()
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(template))
    assert jax.tree.map(jax.typeof, made) == jax.tree.map(lambda x: jax.typeof(jnp.zeros(x.shape, x.dtype)), template)


def test_any_module_with_the_same_call_will_do():
    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(3)(x.reshape(len(x), -1))

    made = models.initialize(Linear(), jax.random.key(0), (4, 4, 3), num_classes=3)
    assert made(IMAGES).shape == (2, 3)


def test_initialize_is_the_init_of_the_module_and_depends_on_the_key_only():
    made = classifier(3)
    expected = module().init(jax.random.key(3), jnp.zeros((1, 4, 4, 3)), train=False)
    for a, b in zip(jax.tree.leaves(made.variables), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(classifier(3)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(jnp.abs(made(IMAGES) - classifier(4)(IMAGES)).max()) > 1e-3


def by_hand(**options):
    return models.Classifier({}, models.MODELS.make('mlp', num_classes=10), 10, **options)


@pytest.mark.parametrize(
    ('make', 'options', 'message'),
    [
        (classifier, {'std': (0.2, 0.0, 0.5)}, 'std must be a finite number above 0, got 0.0'),
        (classifier, {'std': (-0.2,)}, 'std must be a finite number above 0, got -0.2'),
        (classifier, {'std': (0.2, float('nan'), 0.5)}, 'std must be a finite number above 0, got nan'),
        (classifier, {'std': (0.2, 0.3)}, r'std \(0.2, 0.3\) must have .* one for each of the 3'),
        (classifier, {'std': ()}, r'std \(\) must have .* one for each of the 3'),
        (classifier, {'mean': (0.1, 0.2)}, r'mean \(0.1, 0.2\) and std .* one for each of the 3'),
        (classifier, {'num_classes': 4}, r'the model returns logits of shape \(5,\), but num_classes is 4'),
        (by_hand, {'std': (0.0,)}, 'std must be a finite number above 0, got 0.0'),
        (by_hand, {'mean': [0.5]}, r'mean must be a tuple with one number, or .* got \[0\.5\]'),
        (by_hand, {'std': ()}, 'std must be a tuple with one number'),
    ],
)
def test_bad_options(make, options, message):
    with pytest.raises(errors.InputError, match=message):
        make(**options)
