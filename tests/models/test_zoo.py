"""What every model of the zoo has in common."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shapes import calls, convolutions, count, equations, is_plain, layers, shapes_of
from small_models import KINDS, SEQUENTIAL, SMALL, images, shape_of, slow, slow_but, small, without_dropout
from textbook_layers import randomized

from rfn_jax import models
from rfn_jax.models import sizes
from rfn_jax.models.families import convnext

NAMES = list(models.MODELS)
WITHOUT_STATISTICS = ('vit', 'swin', 'convnext', 'vgg11', 'squeezenet')
BY_COST = slow_but(SEQUENTIAL, KINDS)
# Those with fewer than 10 million parameters, which can be traced in a second; the table is made by the same function.
SMALL_IMAGES = [
    name for name, size in sizes.table().items() if name.startswith('cifar_') and size.parameters < 10_000_000
]
QUICK = ('cifar_convnext', 'cifar_mobilenet_v3_small', 'cifar_resnet20', 'cifar_vgg11', 'cifar_vit')
O0 = {'xla_backend_optimization_level': 0}


def variables_of(name):
    """Random values everywhere; drawing them with NumPy saves the compilation of `init`."""
    return randomized(shapes_of(small(name), shape_of(name)))


def evaluate(module, variables, batch):
    return jax.jit(lambda v, x: module.apply(v, x, train=False), compiler_options=O0)(variables, batch)


def test_every_model_is_general_or_has_a_size():
    assert sorted([*sizes.table(), *sizes.GENERAL]) == NAMES
    assert sizes.complete_models() == list(sizes.table())
    assert {name for name in sizes.table() if name.startswith((sizes.CIFAR, *sizes.OTHERS))} == {
        name for name, size in sizes.table().items() if not size.torchvision
    }


@pytest.mark.parametrize('name', slow_but(QUICK, SMALL_IMAGES))
def test_the_sizes_in_the_table_are_those_of_the_models(name):
    size = sizes.measure(name, sizes.template(name))
    assert dataclasses.asdict(size) == pytest.approx(dataclasses.asdict(sizes.table()[name]), abs=1e-6)
    assert (size.image_size, size.num_classes) == (32, 10)


# https://github.com/kuangliu/pytorch-cifar, https://github.com/akamaster/pytorch_resnet_cifar10, and table 5 of Zagoruyko and
# Komodakis: 36.5 and 2.2 million.
PARAMETERS = {
    **{'cifar_vgg11': 9_231_114, 'cifar_vgg13': 9_416_010, 'cifar_vgg16': 14_728_266, 'cifar_vgg19': 20_040_522},
    **{'cifar_resnet18': 11_173_962, 'cifar_resnet50': 23_520_842, 'cifar_resnet101': 42_512_970},
    **{'cifar_resnet20': 269_722, 'cifar_resnet32': 464_154, 'cifar_resnet44': 658_586, 'cifar_resnet56': 853_018},
    **{'cifar_resnet110': 1_727_962, 'cifar_preact_resnet18': 11_171_146},
    **{'cifar_wide_resnet28_10': 36_479_194, 'cifar_wide_resnet40_2': 2_243_546},
    # pytorch-cifar, the trainable ones of Keras's MobileNet, and the PyTorch package of EfficientNet-Lite, whose authors
    # write 4.7, 5.4, 6.1, 8.2 and 13.0 million
    **{'cifar_mobilenet_v1': 3_217_226, 'mobilenet_v1': 4_231_976, 'efficientnet_lite0': 4_652_008},
    **{'efficientnet_lite1': 5_416_680, 'efficientnet_lite2': 6_092_072, 'efficientnet_lite3': 8_197_096},
    'efficientnet_lite4': 13_006_568,
    # patches 48 x 192 + 192, 64 positions, 6 x (12 x 192^2 + 13 x 192), last norm, head
    'cifar_vit': 9_408 + 64 * 192 + 6 * (12 * 192**2 + 13 * 192) + 384 + 1_930,
}  # fmt: skip


def test_the_numbers_of_parameters_in_the_table_are_those_of_the_papers():
    assert {name: sizes.table()[name].parameters for name in PARAMETERS} == PARAMETERS


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'options', 'expected'),
    [
        *(
            (name, {'num_classes': sizes.table()[name].num_classes}, PARAMETERS[name])
            for name in sorted(PARAMETERS.keys() - set(SMALL_IMAGES))
        ),
        # two 1x1 projections with batch normalization: 16 x 32 + 64 + 32 x 64 + 128
        ('cifar_resnet', {'num_classes': 10, 'depth': 20, 'shortcut': 'projection'}, 269_722 + 2_752),
        # (3072 x 256 + 256) + (256 x 256 + 256) + 2 x 512 + (256 x 10 + 10)
        ('mlp', {'num_classes': 10}, 786_688 + 65_792 + 1_024 + 2_570),
        # torchvision's MobileNetV2(width_mult=...), efficientnet_b1, b2 and b3, and MobileNetV3(*_mobilenet_v3_conf(...))
        ('mobilenet_v2', {'width_multiplier': 0.35}, 1_677_128),
        ('mobilenet_v2', {'width_multiplier': 0.5}, 1_968_680),
        ('mobilenet_v2', {'width_multiplier': 1.4}, 6_108_776),
        ('mobilenet_v3_small', {'width_multiplier': 0.5}, 917_264),
        ('mobilenet_v3_large', {'width_multiplier': 0.75}, 3_377_576),
        ('efficientnet', {'depth_multiplier': 1.1}, 7_794_184),
        ('efficientnet', {'width_multiplier': 1.1, 'depth_multiplier': 1.2}, 9_109_994),
        ('efficientnet', {'width_multiplier': 1.2, 'depth_multiplier': 1.4}, 12_233_232),
        # the trainable ones of Keras's MobileNet(alpha=...)
        ('mobilenet_v1', {'width_multiplier': 0.25}, 470_072),
        ('mobilenet_v1', {'width_multiplier': 0.5}, 1_331_592),
        ('mobilenet_v1', {'width_multiplier': 0.75}, 2_585_560),
    ],
)
def test_the_number_of_parameters(name, options, expected):
    assert count(models.MODELS.make(name, **{'num_classes': 1000} | options)) == expected


@pytest.mark.parametrize(
    ('name', 'depth', 'layers'),
    [
        *(('cifar_resnet', depth, depth) for depth in (8, 20, 32)),
        # The paper counts the shortcuts of the three stages among the layers, and the dense layer with them.
        *(('cifar_wide_resnet', depth, depth - 2) for depth in (10, 16, 28)),
    ],
)
def test_a_residual_network_has_its_depth(name, depth, layers):
    shapes = shapes_of(models.MODELS.make(name, num_classes=10, depth=depth))['params']
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    assert sum('kernel' in path and 'downsample' not in path for path in paths) == layers


@pytest.mark.parametrize(
    ('name', 'size', 'expected'),
    [
        slow('mobilenet_v1', 33, [17] * 2 + [9] * 2 + [5] * 2 + [3] * 6 + [2] * 2),
        slow('mobilenet_v1', 1, [1] * 14),
        ('mobilenet_v2', 33, [17] * 2 + [9] * 2 + [5] * 3 + [3] * 7 + [2] * 5),
        slow('mobilenet_v2', 1, [1] * 19),
        slow('mobilenet_v3_small', 1, [1] * 13),
        slow('efficientnet_lite0', 33, [17] * 2 + [9] * 2 + [5] * 2 + [3] * 6 + [2] * 6),
        slow('efficientnet_lite0', 1, [1] * 18),
        # Windows that are not full count in pooling.
        slow('squeezenet1_0', 40, [17] * 2 + [8] * 3 + [4] * 4 + [2] * 4),
        slow('squeezenet1_1', 33, [16] * 2 + [8] * 2 + [4] * 2 + [2] * 7),
        ('cifar_mobilenet_v1', 32, [32] * 2 + [16] * 2 + [8] * 2 + [4] * 6 + [2] * 2),
        slow('cifar_mobilenet_v2', 32, [32] * 4 + [16] * 3 + [8] * 7 + [4] * 5),
        ('cifar_mobilenet_v3_small', 32, [32] * 2 + [16] * 2 + [8] * 5 + [4] * 4),
        slow('cifar_mobilenet_v3_large', 32, [32] * 4 + [16] * 3 + [8] * 6 + [4] * 4),
        slow('cifar_efficientnet_b0', 32, [32] * 4 + [16] * 2 + [8] * 6 + [4] * 6),
        slow('cifar_efficientnet_lite0', 32, [32] * 4 + [16] * 2 + [8] * 6 + [4] * 6),
        ('cifar_squeezenet1_1', 32, [30] * 2 + [15] * 2 + [7] * 2 + [3] * 7),
        ('cifar_convnext', 32, [16] * 6 + [8] * 5 + [4] * 4),
        ('cifar_swin_t', 32, [16] * 4 + [8] * 3 + [4] * 8),  # which windows of 4 divide
    ],
)
def test_the_rows_of_the_features_of_small_images(name, size, expected):
    module = models.MODELS.make(name, num_classes=10)
    found = [call.out.shape for call in layers(module, (size, size, 3)).values()]
    assert [shape[1] for shape in found if len(shape) == 4] == expected
    assert name != 'cifar_swin_t' or module.window_size == 4


@pytest.mark.slow
@pytest.mark.parametrize('name', ['efficientnet_b0', 'mobilenet_v2', 'mobilenet_v3_small', 'mobilenet_v3_large'])
def test_the_forms_for_small_images_have_the_same_parameters(name):
    forms = [models.MODELS.make(form, num_classes=10) for form in (f'cifar_{name}', name)]
    assert shapes_of(forms[0]) == shapes_of(forms[1])


STEM = {'stem_kernel': 3, 'stem_strides': 1, 'stem_pool': False}
HEAD = {'pool_size': 1, 'hidden_widths': (), 'dropout': 0.0}


@pytest.mark.parametrize(
    ('form', 'name', 'differences'),
    [
        *((f'cifar_densenet{depth}', f'densenet{depth}', STEM) for depth in (121, 161, 169, 201)),
        *((f'cifar_vgg{depth}', f'vgg{depth}_bn', HEAD) for depth in (11, 13, 16, 19)),
        *((f'vgg{depth}', f'vgg{depth}_bn', {'batch_norm': False}) for depth in (11, 13, 16, 19)),
        ('cifar_vit', 'vit', {}),
    ],
)
def test_a_form_differs_from_another_in_few_options(form, name, differences):
    module, other = (models.MODELS.make(n, num_classes=10) for n in (form, name))
    assert module == other.clone(**differences)
    assert all(getattr(other, option) != value for option, value in differences.items())


NORMALIZATIONS = {
    **dict.fromkeys(('googlenet', 'cifar_inception_v3'), (0.9, 1e-3)),
    **dict.fromkeys(('mobilenet_v3_small', 'efficientnet_lite'), (0.99, 1e-3)),  # torch's momentum is 0.01
}


@pytest.mark.parametrize('name', slow_but(SEQUENTIAL, [name for name in KINDS if name not in WITHOUT_STATISTICS]))
def test_normalizations_have_the_momentum_and_epsilon_of_torchvision(name):
    norms = [call.module for call in calls(small(name), nn.BatchNorm, shape_of(name))]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {NORMALIZATIONS.get(name, (0.9, 1e-5))}


@pytest.mark.parametrize(
    ('name', 'size', 'path', 'shape', 'std'),
    [
        ('mobilenet_v2', 8, 'classifier', (200, 50), 0.01),
        ('mobilenet_v3_small', 8, 'classifier_0', (200, 50), 0.01),
        ('mobilenet_v3_small', 8, 'classifier_3', (200, 50), 0.01),
        ('efficientnet', 8, 'classifier', (200, 50), 1 / np.sqrt(3 * 50)),
        ('vgg', 8, 'fc', (200, 50), 1 / np.sqrt(3 * 200)),
        ('squeezenet', 8, 'features_3/squeeze', (1, 1, 300, 200), np.sqrt(2 / 300)),
        ('squeezenet', 8, 'classifier_1', (1, 1, 300, 200), 0.01),
        *(('vgg11', 8, layer, (200, 50), 0.01) for layer in ('fc1', 'fc2', 'fc')),
        ('densenet', 8, 'denseblock1_denselayer1/conv1', (1, 1, 64, 128), np.sqrt(2 / 64)),
        ('densenet', 8, 'denseblock1_denselayer1/conv2', (3, 3, 128, 32), np.sqrt(2 / (9 * 128))),
        slow('inception_v3', 299, 'AuxLogits/conv0/conv', (1, 1, 40, 128), 0.1),
        slow('inception_v3', 299, 'AuxLogits/conv1/conv', (5, 5, 16, 20), 0.01),
        slow('inception_v3', 299, 'AuxLogits/fc', (200, 50), 0.001),
    ],
)
def test_kernels_start_as_in_pytorch(name, size, path, shape, std):
    module = models.MODELS.make(name, num_classes=5, width=1 / 64) if name == 'inception_v3' else small(name)
    found = {call.path: call.module for call in calls(module, (nn.Dense, nn.Conv), (size, size, 3), train=True)}
    kernel = found[path].kernel_init(jax.random.key(0), shape)
    assert float(kernel.std()) == pytest.approx(std, rel=0.05)
    uniform = (name, path) in {('efficientnet', 'classifier'), ('vgg', 'fc'), ('squeezenet', 'features_3/squeeze')}
    assert (float(jnp.abs(kernel).max()) < 1.75 * std) == uniform


@pytest.mark.parametrize(('options', 'scale'), [({}, 1e-6), ({'layer_scale': 0.5}, 0.5)])
def test_the_branches_of_a_convnext_start_with_the_layer_scale(options, scale):
    blocks = [call.module for call in calls(small('convnext', **options), convnext.ConvNeXtBlock)]
    assert [block.initial_scale for block in blocks] == [scale] * 3
    init = jax.jit(lambda: blocks[0].clone(parent=None).init(jax.random.key(0), jnp.zeros((1, 2, 2, 4)), train=False))
    np.testing.assert_array_equal(init()['params']['layer_scale'], np.full((4, 1, 1), scale, np.float32))


@pytest.mark.parametrize('name', slow_but(('mlp', 'vgg11'), KINDS))
def test_evaluation_is_per_example_and_training_is_not(name):
    module, batch, variables = without_dropout(name), images(name), variables_of(name)
    mutable = ['batch_stats', 'auxiliary_logits']
    together = evaluate(module, variables, batch)
    assert (together.shape, together.dtype) == ((3, 5), jnp.float32)
    alone = evaluate(module, variables, batch[1:2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)
    assert float(jnp.abs(together - together[:1]).max()) > 1e-4  # the examples do differ
    rounded = evaluate(without_dropout(name, dtype=jnp.bfloat16), variables, batch)
    assert rounded.dtype == jnp.float32
    assert 0 < float(jnp.abs(rounded - together).max()) < 0.05 * float(jnp.abs(together).max())
    train = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable=mutable), compiler_options=O0)
    trained, changes = train(variables, batch)
    if name in WITHOUT_STATISTICS:
        np.testing.assert_allclose(trained, together, atol=1e-5)
        assert 'batch_stats' not in variables
        assert changes.get('batch_stats', {}) == {}
        return
    assert float(jnp.abs(trained - together).max()) > 1e-3
    assert set(changes) == {'batch_stats', *(['auxiliary_logits'] if name == 'googlenet' else [])}
    assert jax.tree.structure(changes['batch_stats']) == jax.tree.structure(variables['batch_stats'])
    for new, old in zip(*(jax.tree.leaves(v['batch_stats']) for v in (changes, variables)), strict=True):
        assert float(jnp.abs(new - old).max()) > 0


@pytest.mark.parametrize('name', [name for name in SEQUENTIAL if name not in WITHOUT_STATISTICS])
def test_training_without_mutable_is_refused(name):
    with pytest.raises(Exception, match='batch_stats'):
        jax.eval_shape(
            lambda v: without_dropout(name).apply(v, images(name), train=True), shapes_of(small(name), shape_of(name))
        )


@pytest.mark.parametrize('name', BY_COST)
def test_convolutions_have_explicit_padding_and_fast_gradients(name):
    module, batch, variables = small(name), images(name), shapes_of(small(name), shape_of(name))

    def loss(variables, images):
        return module.apply(variables, images, train=False).sum()

    forward = convolutions(loss, variables, batch)
    assert bool(forward) == (name != 'mlp')
    for equation in forward:
        assert name == 'efficientnet_lite' or all(before == after for before, after in equation.params['padding'])
    both = convolutions(jax.grad(loss, (0, 1)), variables, batch)
    plain = [equation for equation in forward if equation.params['feature_group_count'] == 1]
    # A grouped one is traced once more for the gradient of its images, which stays XLA's.
    assert len(both) == 3 * len(plain) + 4 * (len(forward) - len(plain))
    for equation in both:
        assert is_plain(equation) or equation.params['feature_group_count'] > 1


@pytest.mark.parametrize('name', [*BY_COST, 'vit_of_a_token'])
def test_all_but_the_last_layer_compute_in_bfloat16(name):
    options = {'pool': 'token'} if name == 'vit_of_a_token' else {}
    name = name.removesuffix('_of_a_token')
    module, exact = (small(name, **options, dtype=dtype) for dtype in (jnp.bfloat16, jnp.float32))
    variables = shapes_of(exact, shape_of(name))
    assert shapes_of(module, shape_of(name)) == variables
    jaxpr = jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, images(name)).jaxpr
    products, convolved = (
        [{v.aval.dtype for v in equation.invars} for equation in equations(jaxpr, kind)]
        for kind in ('dot_general', 'conv_general_dilated')
    )
    assert (products or convolved).pop() == {jnp.dtype(jnp.float32)}  # the last one makes the logits
    assert all(found == {jnp.dtype(jnp.bfloat16)} for found in (*products, *convolved))
    found = [call for call in layers(module, shape_of(name)).values() if not isinstance(call.module, nn.Dropout)]
    last = 2 if name == 'squeezenet' else 1  # a ReLU comes after its last convolution
    assert {call.out.dtype for call in found[-last:]} == {jnp.dtype(jnp.float32)}
    assert {call.out.dtype for call in found[:-last]} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize('name', KINDS)
def test_modules_are_hashable_and_equal_by_their_options(name):
    assert small(name) == small(name)
    assert hash(small(name)) == hash(small(name))
    assert small(name) != models.MODELS.make(name, num_classes=6, **SMALL[name])
