"""m-sharpness, micro-batches and sharded states on 8 virtual devices, and their cost in communication and memory."""

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batch_of import batch_of

from rfn_jax import models, optim, training
from rfn_jax.core import errors, rng, sharding

DESCENT = optim.momentum_sgd(0.1, momentum=0.9, weight_decay=5e-4)
B = 32


class ConvNet(nn.Module):
    """One convolution, optional batch normalization, and a dense layer."""

    norm: bool = True

    @nn.compact
    def __call__(self, x, train=True):
        x = models.layers.conv(8, 3, strides=2, name='conv')(x)
        if self.norm:
            x = models.layers.batch_norm(use_running_average=not train, name='bn')(x)
        x = nn.relu(x).reshape(len(x), -1)
        return models.layers.dense(10, name='fc')(x)


class Run:
    """A few steps of a network on some devices."""

    def __init__(
        self, bench, module, minimizer, devices, *, shard_state=False, batch=B, poison=False, descent=DESCENT, **options
    ):
        self.batch = batch
        self.mesh = sharding.data_mesh(jax.devices()[:devices])
        c = models.initialize(module, rng.key_for(0, 'test'), (8, 8, 1), num_classes=10)
        tx = optim.Optimizer(minimizer, descent)
        self.step = training.train_step(
            module,
            c.mean,
            c.std,
            tx,
            lambda x, k: x.at[3].set(jnp.nan) if poison else x,
            self.mesh,
            shard_state=shard_state,
            **options,
        )
        state = training.create(c, tx)
        self.state = sharding.place(state, sharding.of_state(state, self.mesh, shard=shard_state))
        self.train = bench.train
        self.key = rng.key_for(0, 'augment', 1)

    def after(self, steps):
        for t in range(steps):
            self.state, metrics = self.step(self.state, self.examples(t), self.key)
        return jax.device_get((self.state, metrics))

    def examples(self, t=0):
        return batch_of(self.train, np.arange(self.batch) + t)

    def lowered(self):
        return self.step.lower(self.state, self.examples(), self.key)

    def compiled(self):
        return self.lowered().compile()


def all_reduces(compiled):
    return len(re.findall(r' all-reduce(?:-start)?\(', compiled.as_text()))


def assert_close(a, b, atol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=atol), a, b)


def make(name):
    return optim.MINIMIZERS.make(name, **({} if name == 'sgd' else {'rho': 0.3}))


# ---------------------------------------------------------------------------------------------------------------------
# The same result on every number of devices


@pytest.mark.slow
@pytest.mark.parametrize('name', list(optim.MINIMIZERS))
def test_data_parallel_and_sharded_states_equal_one_device(bench, name):
    one = Run(bench, ConvNet(), make(name), 1).after(3)
    assert_close(one, Run(bench, ConvNet(), make(name), 8).after(3))
    run = Run(bench, ConvNet(), make(name), 8, shard_state=True)
    kernel = run.state.params['fc']['kernel']
    assert kernel.addressable_shards[0].data.size == kernel.size // 8
    expected = sharding.of_state(run.state, run.mesh, shard=True)
    assert_close(one, run.after(3))
    jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim) or pytest.fail(str(s)), run.state, expected)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['rfn_sam', 'rfn_looksam', 'rfn_esam', 'random_sam'])
@pytest.mark.parametrize('group_size', [4, 16])
def test_groups_do_not_depend_on_the_number_of_devices(bench, name, group_size):
    one = Run(bench, ConvNet(), make(name), 1, group_size=group_size).after(3)
    for devices in (2, 4, 8):
        assert_close(one, Run(bench, ConvNet(), make(name), devices, group_size=group_size).after(3))
    whole = Run(bench, ConvNet(), make(name), 1).after(3)
    assert np.abs(one[0].params['fc']['kernel'] - whole[0].params['fc']['kernel']).max() > 1e-3


def test_groups_equal_a_loop_over_groups(bench):
    m, rho = 8, 0.3
    (state, metrics) = Run(bench, ConvNet(), optim.rfn_sam(rho), 4, group_size=m).after(2)

    module = ConvNet()
    c = models.initialize(module, rng.key_for(0, 'test'), (8, 8, 1), num_classes=10)
    w, stats = c.variables['params'], c.variables['batch_stats']
    velocity = jax.tree.map(jnp.zeros_like, w)

    def loss(w, stats, x, y):
        z, new = module.apply({'params': w, 'batch_stats': stats}, x, train=True, mutable=['batch_stats'])
        return -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(len(y)), y]), new['batch_stats']

    for t in range(2):
        x = jnp.asarray(bench.train.images[t : t + B], jnp.float32) / 255
        y = bench.train.labels[t : t + B]
        perturbed, moved, norms = [], [], []
        for start in range(0, B, m):
            part = (x[start : start + m], y[start : start + m])
            g, new = jax.grad(loss, has_aux=True)(w, stats, *part)
            norm = np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(g)))
            top = jax.tree.map(lambda a, b, norm=norm: a + rho * b / norm, w, g)
            perturbed.append(jax.grad(loss, has_aux=True)(top, stats, *part)[0])
            moved.append(new)
            norms.append(norm)
        g = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *perturbed)
        stats = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *moved)
        velocity = jax.tree.map(lambda v, a, b: 0.9 * v + a + 5e-4 * b, velocity, g, w)
        w = jax.tree.map(lambda a, v: a - 0.1 * v, w, velocity)
    assert_close(state.params, w)
    assert_close(state.batch_stats, stats)
    np.testing.assert_allclose(metrics['gradient_norm'], np.mean(norms), rtol=1e-5)
    assert int(metrics['ascent_count']) == 2


def test_device_groups_are_groups_of_what_a_device_holds(bench):
    minimizer = optim.rfn_sam(0.3)
    assert_close(
        Run(bench, ConvNet(), minimizer, 4, group_size='device').after(2),
        Run(bench, ConvNet(), minimizer, 1, group_size=B // 4).after(2),
    )


def test_one_group_of_the_whole_batch_equals_no_groups(bench):
    minimizer = optim.rfn_sam(0.3)
    assert_close(
        Run(bench, ConvNet(), minimizer, 8, group_size=B).after(2), Run(bench, ConvNet(), minimizer, 1).after(2)
    )


def test_micro_batches_accumulate_and_share_the_perturbation(bench):
    # Without batch normalization, dividing the batch changes nothing.
    minimizer = optim.rfn_sam(0.3)
    whole = Run(bench, ConvNet(norm=False), minimizer, 1).after(3)
    for devices in (1, 8):
        assert_close(whole, Run(bench, ConvNet(norm=False), minimizer, devices, micro_batch_size=8).after(3))
    groups = Run(bench, ConvNet(norm=False), minimizer, 1, group_size=16).after(3)
    assert_close(groups, Run(bench, ConvNet(norm=False), minimizer, 2, group_size=16, micro_batch_size=4).after(3))
    # With it, each micro-batch is normalized by itself, and the running statistics are updated by the mean.
    one = Run(bench, ConvNet(), minimizer, 1, micro_batch_size=8).after(3)
    assert_close(one, Run(bench, ConvNet(), minimizer, 8, micro_batch_size=8).after(3))


def test_micro_batches_update_the_statistics_by_the_mean_of_theirs(bench):
    (state, _) = Run(bench, ConvNet(), optax.identity(), 1, micro_batch_size=8).after(1)
    c = models.initialize(ConvNet(), rng.key_for(0, 'test'), (8, 8, 1), num_classes=10)
    x = jnp.asarray(bench.train.images[:B], jnp.float32) / 255
    moved = [
        c.module.apply(c.variables, x[i :: B // 8], train=True, mutable=['batch_stats'])[1]['batch_stats']
        for i in range(B // 8)
    ]
    assert_close(state.batch_stats, jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *moved))


def test_esam_descends_on_the_selected_examples_only(bench):
    minimizer = optim.esam(0.3, gamma=0.25)
    one, eight = Run(bench, ConvNet(), minimizer, 1), Run(bench, ConvNet(), minimizer, 8)
    for run, devices in ((one, 1), (eight, 8)):
        text = run.compiled().as_text()
        assert f'f32[{B // devices},4,4,8]' in text
        assert (
            f'f32[{B // 4 // devices},4,4,8]' in text
        )  # a second pass over a quarter of the batch, shared by the devices
    assert_close(one.after(2), eight.after(2))


def test_a_sharded_state_gathers_parameters_and_not_activations(bench):
    text = Run(bench, ConvNet(), optim.rfn_sam(0.3), 8, shard_state=True).compiled().as_text()
    assert f'f32[{B},4,4,8]' not in text
    assert f'f32[{B // 8},4,4,8]' in text


def test_bfloat16_compute_keeps_float32_states(bench):
    module = models.MODELS.make('resnet', num_classes=10, stage_sizes=(1,), widths=(4,), dtype='bfloat16')
    minimizer = optax.chain(optim.friendly_sam(0.3))
    run = Run(bench, module, minimizer, 1)
    assert 'bf16' in run.lowered().as_text()
    state, metrics = run.after(5)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {'float32', 'int32'}
    full = models.MODELS.make('resnet', num_classes=10, stage_sizes=(1,), widths=(4,))
    _, expected = Run(bench, full, minimizer, 1).after(5)
    np.testing.assert_allclose(metrics['gradient_norm'], expected['gradient_norm'], rtol=0.05)
    np.testing.assert_allclose(metrics['perturbation_norm'], 0.3, rtol=1e-5)
    np.testing.assert_allclose(metrics['loss'], expected['loss'], rtol=0.05)


@pytest.mark.parametrize(('batch', 'group_size', 'devices'), [(24, 8, 8), (48, 8, 4)])
def test_devices_of_a_row_share_a_group(bench, batch, group_size, devices):
    minimizer = optim.rfn_sam(0.3)
    one = Run(bench, ConvNet(), minimizer, 1, group_size=group_size, batch=batch).after(2)
    run = Run(bench, ConvNet(), minimizer, devices, group_size=group_size, batch=batch)
    shares = group_size // (devices // math.gcd(batch // group_size, devices))
    text = run.compiled().as_text()
    assert f'f32[{shares},4,4,8]' in text  # the output of the convolution on a device
    assert f'f32[{group_size},4,4,8]' not in text
    assert_close(one, run.after(2))


def test_a_sharded_state_with_groups(bench):
    minimizer = optim.friendly_sam(0.3)
    one = Run(bench, ConvNet(), minimizer, 1, group_size=8).after(2)
    assert_close(one, Run(bench, ConvNet(), minimizer, 8, group_size=8, shard_state=True).after(2))


@pytest.mark.parametrize('options', [{}, {'group_size': 8}, {'micro_batch_size': 8}], ids=['batch', 'groups', 'pieces'])
@pytest.mark.parametrize('name', ['rfn_sam', 'rfn_friendly_sam', 'rfn_looksam'])
def test_a_step_that_is_not_finite_leaves_everything_finite(bench, name, options):
    run = Run(bench, ConvNet(), make(name), 1, poison=True, **options)
    state, metrics = run.after(2)
    for leaf in jax.tree.leaves((state.params, state.batch_stats)):
        assert np.all(np.isfinite(leaf))
    assert int(metrics['skipped_count']) == 2
    assert not np.isfinite(metrics['loss'])


def test_optax_wrappers_work_with_groups(bench):
    minimizer = optax.chain(
        optax.inject_hyperparams(optim.rfn_sam)(rho=0.3), optax.apply_if_finite(optax.identity(), 3)
    )
    run = Run(bench, ConvNet(), minimizer, 2, group_size=8)
    before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), run.state.opt_state)
    state, _ = run.after(2)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state.opt_state) == before
    assert_close(state.params, Run(bench, ConvNet(), optim.rfn_sam(0.3), 2, group_size=8).after(2)[0].params)


def test_an_average_after_the_descent_is_donated_with_the_state(bench):
    descent = optax.chain(DESCENT, optim.swa())
    run = Run(bench, ConvNet(), optim.sam(0.1), 1, descent=descent)
    state, _ = run.after(3)
    average = optim.average_params(state.opt_state)
    assert np.abs(average['fc']['kernel'] - state.params['fc']['kernel']).max() > 1e-4

    @functools.partial(jax.jit, donate_argnums=0)
    def count_up(opt_state):
        return jax.tree.map(lambda leaf: leaf + 1, opt_state)

    count_up(optim.swa().init({'w': jnp.ones(3)}))


# ---------------------------------------------------------------------------------------------------------------------
# Costs


@pytest.mark.parametrize(
    ('name', 'norm', 'group_size', 'expected'),
    [
        ('sgd', False, None, 1),
        ('rfn_sam', False, None, 2),
        ('rfn_sam', False, 'device', 1),
        ('rfn_sam', False, 2, 1),
        ('rfn_sam', True, 'device', 1),
        ('rfn_gsam', True, 4, 1),
        ('sgd', True, None, 1 + 2),  # forward and backward of the one normalization layer, in addition to the gradients
        ('rfn_sam', True, None, 2 * (1 + 2)),
    ],
)
def test_the_number_of_all_reduces(bench, name, norm, group_size, expected):
    compiled = Run(bench, ConvNet(norm=norm), make(name), 8, group_size=group_size).compiled()
    assert all_reduces(compiled) == expected
    assert not re.search(r' (all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\(', compiled.as_text())


def test_joined_reductions_cost_no_communication(bench, monkeypatch):
    def built():
        run = Run(bench, ConvNet(), make('rfn_sam'), 8)
        lowered = run.lowered()
        return run, lowered.as_text().count('concatenate'), lowered.compile()

    run, concatenations, compiled = built()
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')  # there, small arrays are joined before they are reduced
    joined, more, joined_compiled = built()
    assert more > concatenations
    assert all_reduces(joined_compiled) == all_reduces(compiled)
    assert not re.search(
        r' (all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\(', joined_compiled.as_text()
    )
    assert_close(joined.after(2), run.after(2))


def test_one_step_of_rfn_needs_at_most_a_copy_of_parameters_and_gradients_more_than_sgd(bench):
    module = models.MODELS.make('mlp', num_classes=10, widths=(512, 512, 512))
    runs = {name: Run(bench, module, make(name), 1) for name in ('sgd', 'rfn_sam')}
    memory = {name: run.compiled().memory_analysis() for name, run in runs.items()}
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(runs['sgd'].state.params))

    def peak(m):
        return m.temp_size_in_bytes + m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes

    extra = peak(memory['rfn_sam']) - peak(memory['sgd'])
    assert 0 < extra <= 2 * size


# ---------------------------------------------------------------------------------------------------------------------
# Errors


def recipe_of(minimizer, batch_size=B, **sizes):
    return training.Recipe(
        epochs=1, batch_size=batch_size, learning_rate=0.1, momentum=0.9, weight_decay=0, decay_epochs=(),
        decay_factor=0.1, crop_padding=0, flip=False, minimizer=minimizer, **sizes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'group_size': 5}, "group_size must be a divisor of batch_size 32, 'device' or None, got 5"),
        ({'group_size': 0}, "group_size must be a divisor of batch_size 32, 'device' or None, got 0"),
        ({'group_size': 'devices'}, "group_size must be .* got 'devices'"),
        ({'micro_batch_size': 5}, 'micro_batch_size must divide the 32 examples that share a perturbation, got 5'),
        ({'group_size': 8, 'micro_batch_size': 16}, 'micro_batch_size must divide the 8 examples .* got 16'),
    ],
)
def test_sizes_that_are_not_divisors_are_refused(bench, options, message):
    with pytest.raises(errors.InputError, match=message):
        Run(bench, ConvNet(), optim.rfn_sam(), 1, **options).after(1)
    with pytest.raises(errors.InputError, match=message):
        recipe_of({'name': 'rfn_sam'}, **options)


ESAM_SIZES = [
    ({'micro_batch_size': 8}, {'gamma': 0.4}, 13),
    ({'group_size': 16, 'micro_batch_size': 4}, {'gamma': 0.6}, 10),
    ({'group_size': 8, 'micro_batch_size': 2}, {'name': 'rfn_esam', 'gamma': 0.3}, 3),
    ({'batch_size': 24, 'micro_batch_size': 8}, {}, 12),  # the gamma of the paper
]


@pytest.mark.parametrize(('sizes', 'options', 'kept'), ESAM_SIZES)
def test_micro_batches_must_divide_what_esam_keeps(bench, sizes, options, kept):
    size = sizes['micro_batch_size']
    message = (
        rf'micro_batch_size must divide the {kept} examples of a gradient \(esam .* or be at least {kept}, got {size}'
    )
    spec = {'name': 'esam', **options}
    with pytest.raises(errors.InputError, match=message):
        recipe_of(spec, **sizes)
    of_step = {'batch' if name == 'batch_size' else name: value for name, value in sizes.items()}
    with pytest.raises(errors.InputError, match=message):
        Run(bench, ConvNet(), optim.MINIMIZERS.make_from(spec), 1, **of_step).after(1)
    recipe_of(spec, **sizes | {'micro_batch_size': None})
    recipe_of({'name': 'sam'}, **sizes)


def test_esam_may_keep_fewer_examples_than_a_micro_batch(bench):
    recipe_of({'name': 'esam', 'gamma': 0.25}, micro_batch_size=16)
    minimizer = optim.esam(0.3, gamma=0.25)
    pieces = Run(bench, ConvNet(norm=False), minimizer, 1, micro_batch_size=16).after(2)
    assert_close(pieces, Run(bench, ConvNet(norm=False), minimizer, 1).after(2))


def test_the_state_of_a_minimizer_that_runs_per_group_must_not_hold_a_key(bench):
    keeps_a_key = optax.GradientTransformation(lambda params: jax.random.PRNGKey(0), lambda g, key, _: (g, key))
    run = Run(bench, ConvNet(), optax.chain(optim.rfn_sam(), keeps_a_key), 1, group_size=8)
    with pytest.raises(
        errors.InputError, match=r'got uint32\[2\] at \[1\]: move the transformation that keeps it to the descent'
    ):
        run.after(1)


def test_groups_need_an_optimizer_that_tells_where_the_minimizer_ends(bench):
    tx, mesh = optax.chain(optim.rfn_sam(), DESCENT), sharding.data_mesh(jax.devices()[:1])
    with pytest.raises(errors.InputError, match=r'group_size 8 needs an optim\.Optimizer'):
        training.train_step(ConvNet(), (0.5,), (0.3,), tx, lambda x, k: x, mesh, group_size=8)
