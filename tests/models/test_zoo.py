"""What every model of the zoo has in common."""

import dataclasses
import inspect

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapes
import textbook_layers
from small_models import KINDS, SMALL, images, small

from rfn_jax import models
from rfn_jax.core import errors
from rfn_jax.models import sizes

NAMES = list(models.MODELS)
WITHOUT_STATISTICS = ('vit', 'swin', 'convnext', 'vgg11', 'squeezenet')
# Those with fewer than 10 million parameters, which can be traced in a second; the table is made by the same function.
SMALL_IMAGES = [
    name for name, size in sizes.table().items() if name.startswith('cifar_') and size.parameters < 10_000_000
]
RATES = ('dropout', 'auxiliary_dropout', 'stochastic_depth')
O0 = {'xla_backend_optimization_level': 0}


def without_dropout(name, **options):
    """The small form without dropout and stochastic depth."""
    rates = {rate: 0.0 for rate in RATES if rate in inspect.signature(models.MODELS[name]).parameters}
    return small(name, **rates, **options)


def variables_of(module, size=8):
    """Random values everywhere; drawing them with NumPy saves the compilation of `init`."""
    return textbook_layers.randomized(shapes.shapes_of(module, size))


def test_every_model_is_general_or_has_a_size():
    assert sorted([*sizes.table(), *sizes.GENERAL]) == NAMES
    assert sizes.complete_models() == list(sizes.table())
    assert {name for name in sizes.table() if name.startswith((sizes.CIFAR, *sizes.OTHERS))} == {
        name for name, size in sizes.table().items() if not size.torchvision
    }


@pytest.mark.parametrize('name', SMALL_IMAGES)
def test_the_sizes_in_the_table_are_those_of_the_models(name):
    size = sizes.measure(name, sizes.template(name))
    assert dataclasses.asdict(size) == pytest.approx(dataclasses.asdict(sizes.table()[name]), abs=1e-6)
    assert (size.image_size, size.num_classes) == (32, 10)


@pytest.mark.parametrize('name', KINDS)
def test_evaluation_is_per_example_and_training_is_not(name):
    module, batch = without_dropout(name), images(name)
    variables = variables_of(module, batch.shape[1])
    mutable = ['batch_stats', 'auxiliary_logits']

    evaluate = jax.jit(lambda v, x: module.apply(v, x, train=False), compiler_options=O0)
    train = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable=mutable), compiler_options=O0)
    together = evaluate(variables, batch)
    assert (together.shape, together.dtype) == ((3, 5), jnp.float32)
    alone = jnp.concatenate([evaluate(variables, batch[i : i + 1]) for i in range(3)])
    trained, changes = train(variables, batch)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert float(jnp.abs(together - together[:1]).max()) > 1e-4  # the examples do differ
    if name in WITHOUT_STATISTICS:
        np.testing.assert_allclose(trained, together, atol=1e-5)
        assert 'batch_stats' not in variables
        assert changes.get('batch_stats', {}) == {}
        return
    assert float(jnp.abs(trained - together).max()) > 1e-3
    assert set(changes) == {'batch_stats', 'auxiliary_logits'} - (
        {'auxiliary_logits'} if name != 'googlenet' else set()
    )
    if name == 'googlenet':  # the statistics are checked below, the auxiliary logits elsewhere
        changes = {'batch_stats': changes['batch_stats']}
    assert jax.tree.structure(changes['batch_stats']) == jax.tree.structure(variables['batch_stats'])
    for new, old in zip(*(jax.tree.leaves(v['batch_stats']) for v in (changes, variables)), strict=True):
        assert float(jnp.abs(new - old).max()) > 0


@pytest.mark.parametrize('name', [name for name in KINDS if name not in WITHOUT_STATISTICS])
def test_training_without_mutable_is_refused(name):
    module, batch = without_dropout(name), images(name)
    variables = shapes.shapes_of(module, batch.shape[1])
    with pytest.raises(Exception, match='batch_stats'):
        jax.eval_shape(lambda v: module.apply(v, batch, train=True), variables)


@pytest.mark.parametrize('name', KINDS)
def test_dropout_needs_its_key_in_training_and_none_in_evaluation(name):
    module, batch = small(name), images(name)
    variables = shapes.shapes_of(module, batch.shape[1])
    jax.eval_shape(lambda v: module.apply(v, batch, train=False), variables)

    def train(variables, **options):
        return module.apply(variables, batch, train=True, mutable=['batch_stats'], **options)

    if any(getattr(module, rate, 0) for rate in RATES):
        with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
            jax.eval_shape(train, variables)
    jax.eval_shape(lambda v: train(v, rngs={'dropout': jax.random.key(0)}), variables)


@pytest.mark.parametrize('name', KINDS)
def test_convolutions_have_explicit_padding_and_fast_gradients(name):
    module, batch = small(name), images(name)
    variables = shapes.shapes_of(module, batch.shape[1])

    def loss(variables, images):
        return module.apply(variables, images, train=False).sum()

    forward = list(shapes.convolutions(jax.make_jaxpr(loss)(variables, batch).jaxpr))
    assert bool(forward) == (name != 'mlp')
    for equation in forward:
        assert name == 'efficientnet_lite' or all(before == after for before, after in equation.params['padding'])
    both = list(shapes.convolutions(jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, batch).jaxpr))
    plain = [equation for equation in forward if equation.params['feature_group_count'] == 1]
    # A grouped one is traced once more for the gradient of its images, which stays XLA's.
    assert len(both) == 3 * len(plain) + 4 * (len(forward) - len(plain))
    for equation in both:
        assert shapes.is_plain(equation) or equation.params['feature_group_count'] > 1


@pytest.mark.parametrize('name', KINDS)
def test_bfloat16_computes_in_bfloat16_with_float32_parameters_and_logits(name):
    module, batch = small(name, dtype=jnp.bfloat16), images(name)
    variables = variables_of(module, batch.shape[1])

    def apply(module):
        return lambda v, x: module.apply(v, x, train=False)

    logits = jax.jit(apply(module), compiler_options=O0)(variables, batch)
    assert logits.dtype == jnp.float32
    expected = jax.jit(apply(small(name)), compiler_options=O0)(variables, batch)
    difference = float(jnp.abs(logits - expected).max())
    assert 0 < difference < 0.05 * float(jnp.abs(expected).max())
    convolutions = list(shapes.convolutions(jax.make_jaxpr(apply(module))(variables, batch).jaxpr))
    if name == 'squeezenet':
        convolutions.pop()  # the last one gives the logits
    for equation in convolutions:
        assert {v.aval.dtype for v in equation.invars} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize('name', KINDS)
def test_modules_are_hashable_and_equal_by_their_options(name):
    assert small(name) == small(name)
    assert hash(small(name)) == hash(small(name))
    other = models.MODELS.make(name, num_classes=6, **SMALL[name])
    assert small(name) != other


@pytest.mark.parametrize('name', KINDS)
def test_an_unknown_option_is_named_with_the_nearest(name):
    option = next(iter(SMALL[name]))
    wrong = option[:-1] + 'x'
    with pytest.raises(
        errors.InputError, match=f"unknown option of model '{name}': '{wrong}'; did you mean .*'{option}'"
    ):
        models.MODELS.make(name, num_classes=10, **{wrong: 1})
    assert option in inspect.signature(models.MODELS[name]).parameters


def test_an_unknown_model_is_named_with_the_nearest():
    with pytest.raises(errors.InputError, match=r"unknown model 'restnet18'; did you mean 'resnet18'"):
        models.MODELS.make('restnet18', num_classes=10)
    with pytest.raises(errors.InputError, match=r"^model 'resnet18' needs num_classes$"):
        models.MODELS.make('resnet18')


@pytest.mark.parametrize(
    ('name', 'options', 'count'),
    [
        # https://github.com/kuangliu/pytorch-cifar
        ('cifar_resnet18', {}, 11_173_962),
        ('cifar_resnet50', {}, 23_520_842),
        ('cifar_resnet101', {}, 42_512_970),
        ('cifar_vgg13', {}, 9_416_010),
        ('cifar_vgg19', {}, 20_040_522),
        ('cifar_preact_resnet18', {}, 11_171_146),
        # Zagoruyko and Komodakis, table 5: 36.5 and 2.2 million
        ('cifar_wide_resnet28_10', {}, 36_479_194),
        ('cifar_wide_resnet40_2', {}, 2_243_546),
        # https://github.com/akamaster/pytorch_resnet_cifar10
        ('cifar_resnet', {'depth': 20}, 269_722),
        ('cifar_resnet', {'depth': 32}, 464_154),
        ('cifar_resnet', {'depth': 44}, 658_586),
        ('cifar_resnet', {'depth': 56}, 853_018),
        ('cifar_resnet', {'depth': 110}, 1_727_962),
        # and two 1x1 projections with batch normalization: 16 x 32 + 64 + 32 x 64 + 128
        ('cifar_resnet', {'depth': 20, 'shortcut': 'projection'}, 269_722 + 2_752),
        # (3072 x 256 + 256) + (256 x 256 + 256) + 2 x 512 + (256 x 10 + 10)
        ('mlp', {}, 786_688 + 65_792 + 1_024 + 2_570),
        # patches 48 x 192 + 192, 64 positions, 6 x (12 x 192^2 + 13 x 192), last norm, head
        ('vit', {}, 9_408 + 64 * 192 + 6 * (12 * 192**2 + 13 * 192) + 384 + 1_930),
    ],
)
def test_the_number_of_parameters(name, options, count):
    assert shapes.count(models.MODELS.make(name, num_classes=10, **options), 32) == count
