"""What every model of the zoo has in common."""

import inspect
import math

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from rfn_jax import models
from rfn_jax.core import errors

# A small form of every factory, for what has to be computed.
SMALL = {
    'mlp': {'widths': (8, 6)},
    'cifar_resnet': {'depth': 8, 'width': 2},
    'resnet': {'stage_sizes': (1, 1), 'widths': (4, 6)},
    'resnet18': {'stage_sizes': (1, 2), 'widths': (4, 6), 'shortcut': 'parameter_free'},
    'resnet50': {'stage_sizes': (1, 1), 'widths': (4, 3), 'stem_strides': 2},
    'resnet101': {'stage_sizes': (1, 1), 'widths': (3, 4), 'shortcut': 'parameter_free'},
    'vgg': {'stages': ((4, 4), (6,))},
    'vgg13': {'stages': ((4,), (6,))},
    'vgg19': {'stages': ((4,), (5,), (6,))},
    'vit': {'width': 8, 'depth': 2, 'heads': 2, 'mlp_width': 16},
}
NAMES = list(models.MODELS)
# The others are presets of these; what has to be compiled is compiled for one of each kind.
KINDS = ['cifar_resnet', 'mlp', 'resnet', 'resnet50', 'vgg', 'vit']
REQUIRED = {'vgg': {'stages': ((8,), (8,))}}
IMAGES = np.random.default_rng(0).random((3, 8, 8, 3)).astype(np.float32)
O0 = {'xla_backend_optimization_level': 0}


def small(name, **options):
    return models.MODELS.make(name, num_classes=5, **SMALL[name], **options)


def variables_of(module):
    """Random values everywhere; drawing them with NumPy spares the compilation of `init`."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        assert leaf.dtype == jnp.float32
        value = rng.normal(size=leaf.shape) / np.sqrt(max(math.prod(leaf.shape[:-1]), 1))
        return np.float32(np.abs(value) + 0.5 if path[-1].key in ('var', 'scale') else value)

    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def parameters(module, shape=(1, 32, 32, 3)):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape), train=False))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes['params']))


def convolutions(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'conv_general_dilated':
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from convolutions(inner)


def test_the_table_holds_these_models():
    assert list(models.MODELS) == sorted(SMALL)


@pytest.mark.parametrize('name', NAMES)
def test_full_size_models_give_float32_logits(name):
    module = models.MODELS.make(name, num_classes=7, **REQUIRED.get(name, {}))
    logits, variables = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), train=False)
    )
    assert logits.shape == (2, 7)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize('name', KINDS)
def test_evaluation_is_per_example_and_training_is_not(name):
    module = small(name)
    variables = variables_of(module)

    evaluate = jax.jit(lambda v, x: module.apply(v, x, train=False), compiler_options=O0)
    train = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable=['batch_stats']), compiler_options=O0)
    together = evaluate(variables, IMAGES)
    alone = jnp.concatenate([evaluate(variables, IMAGES[i : i + 1]) for i in range(3)])
    trained, changes = train(variables, IMAGES)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert float(jnp.abs(together - together[:1]).max()) > 1e-4  # the examples do differ
    if name == 'vit':
        np.testing.assert_allclose(trained, together, atol=1e-5)
        assert 'batch_stats' not in variables
        assert changes.get('batch_stats', {}) == {}
        return
    assert float(jnp.abs(trained - together).max()) > 1e-3
    assert set(changes) == {'batch_stats'}
    assert jax.tree.structure(changes['batch_stats']) == jax.tree.structure(variables['batch_stats'])
    for new, old in zip(*(jax.tree.leaves(v['batch_stats']) for v in (changes, variables)), strict=True):
        assert float(jnp.abs(new - old).max()) > 0


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'vit'])
def test_training_without_mutable_is_refused(name):
    module = small(name)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))
    with pytest.raises(Exception, match='batch_stats'):
        jax.eval_shape(lambda v: module.apply(v, IMAGES, train=True), variables)


@pytest.mark.parametrize('name', KINDS)
def test_convolutions_are_padded_by_hand_and_have_fast_gradients(name):
    module = models.MODELS.make(name, num_classes=10, **REQUIRED.get(name, {}))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))

    def loss(variables, images):
        return module.apply(variables, images, train=False).sum()

    forward = list(convolutions(jax.make_jaxpr(loss)(variables, images).jaxpr))
    assert bool(forward) == (name != 'mlp')
    for equation in forward:
        kernel = equation.invars[1].aval.shape[:2]
        pad = 0 if name == 'vit' else kernel[0] // 2
        assert tuple(equation.params['padding']) == ((pad, pad), (pad, pad))
    both = list(convolutions(jax.make_jaxpr(jax.grad(loss, (0, 1)))(variables, images).jaxpr))
    assert len(both) == 3 * len(forward)
    for equation in both:
        numbers = equation.params['dimension_numbers']
        assert (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@pytest.mark.parametrize('name', KINDS)
def test_bfloat16_computes_in_bfloat16_with_float32_parameters_and_logits(name):
    module = small(name, dtype=jnp.bfloat16)
    variables = variables_of(module)

    def apply(module):
        return lambda v, x: module.apply(v, x, train=False)

    logits = jax.jit(apply(module), compiler_options=O0)(variables, IMAGES)
    assert logits.dtype == jnp.float32
    expected = jax.jit(apply(small(name)), compiler_options=O0)(variables, IMAGES)
    difference = float(jnp.abs(logits - expected).max())
    assert 0 < difference < 0.05 * float(jnp.abs(expected).max())
    jaxpr = jax.make_jaxpr(apply(module))(variables, IMAGES)
    for equation in convolutions(jaxpr.jaxpr):
        assert {v.aval.dtype for v in equation.invars} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize('name', NAMES)
def test_modules_are_hashable_and_equal_by_their_options(name):
    assert small(name) == small(name)
    assert hash(small(name)) == hash(small(name))
    other = models.MODELS.make(name, num_classes=6, **SMALL[name])
    assert small(name) != other


@pytest.mark.parametrize('name', NAMES)
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
        ('resnet18', {}, 11_173_962),
        ('resnet50', {}, 23_520_842),
        ('resnet101', {}, 42_512_970),
        ('vgg13', {}, 9_416_010),
        ('vgg19', {}, 20_040_522),
        # https://github.com/akamaster/pytorch_resnet_cifar10
        ('cifar_resnet', {'depth': 20}, 269_722),
        ('cifar_resnet', {'depth': 32}, 464_154),
        ('cifar_resnet', {'depth': 44}, 658_586),
        ('cifar_resnet', {'depth': 56}, 853_018),
        ('cifar_resnet', {'depth': 110}, 1_727_962),
        # and two 1x1 projections with batch normalisation: 16 x 32 + 64 + 32 x 64 + 128
        ('cifar_resnet', {'depth': 20, 'shortcut': 'projection'}, 269_722 + 2_752),
        # (3072 x 256 + 256) + (256 x 256 + 256) + 2 x 512 + (256 x 10 + 10)
        ('mlp', {}, 786_688 + 65_792 + 1_024 + 2_570),
        # patches 48 x 192 + 192, 64 positions, 6 x (12 x 192^2 + 13 x 192), last norm, head
        ('vit', {}, 9_408 + 64 * 192 + 6 * (12 * 192**2 + 13 * 192) + 384 + 1_930),
    ],
)
def test_the_number_of_parameters(name, options, count):
    assert parameters(models.MODELS.make(name, num_classes=10, **options)) == count
