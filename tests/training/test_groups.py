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

from rfn_jax import data, models, optim, training
from rfn_jax.core import errors, rng, sharding

DESCENT = optim.momentum_sgd(0.1, momentum=0.9, weight_decay=5e-4)
B = 32
COLLECTIVES_OF_SHARDS = r' (all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\('


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


NORMALIZED, PLAIN = ConvNet(), ConvNet(norm=False)


@functools.cache
def examples():
    return data.SOURCES.make('digits').train.take(np.arange(64))


@functools.cache
def classifier(module):
    normalization = {'mean': (0.4,), 'std': (0.3,)}
    return models.initialize(module, rng.key_for(0, 'test'), (8, 8, 1), num_classes=10, **normalization)


def make(name, rho=0.3):
    return optim.MINIMIZERS.make(name, **({} if name == 'sgd' else {'rho': rho}))


class Run:
    """A few steps of a network on some devices; the minimizer is a name or a transformation."""

    def __init__(
        self,
        minimizer,
        devices,
        *,
        module=NORMALIZED,
        batch=B,
        augment=lambda x, k: x,
        descent=DESCENT,
        shard=False,
        fsdp=1,
        **options,
    ):
        self.batch, self.mesh = batch, sharding.data_mesh(jax.devices()[:devices], fsdp=fsdp)
        c = classifier(module)
        tx = optim.Optimizer(make(minimizer) if isinstance(minimizer, str) else minimizer, descent)
        self.step = training.train_step(module, c.mean, c.std, tx, augment, self.mesh, shard_state=shard, **options)
        state = training.create(c, tx)
        self.state = sharding.place(state, sharding.of_state(state, self.mesh, shard=shard))
        self.key = rng.key_for(0, 'augment', 1)

    def after(self, steps=2):
        for t in range(steps):
            self.state, metrics = self.step(self.state, self.examples(t), self.key)
        return jax.device_get((self.state, metrics))

    def examples(self, t=0):
        return batch_of(examples(), np.arange(self.batch) + t)

    def lowered(self):
        return self.step.lower(self.state, self.examples(), self.key)

    def compiled(self):
        return self.lowered().compile()


@functools.cache
def result(minimizer, devices, **options):
    """The state and the metrics after two steps; equal runs of several tests are done once."""
    return Run(minimizer, devices, **options).after()


def all_reduces(compiled):
    return len(re.findall(r' all-reduce(?:-start)?\(', compiled.as_text()))


def assert_close(a, b, atol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=atol), a, b)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


OTHERS = [name for name in optim.MINIMIZERS if name != 'sam' and not name.startswith('rfn_')]


@pytest.mark.parametrize('name', ['rfn_sam', *map(slow, OTHERS)])
def test_data_parallel_and_sharded_states_equal_one_device(name):
    one = result(name, 1)
    assert_close(one, result(name, 8))
    run = Run(name, 8, shard=True)
    kernel = run.state.params['fc']['kernel']
    assert kernel.addressable_shards[0].data.size == kernel.size // 8
    expected = sharding.of_state(run.state, run.mesh, shard=True)
    assert_close(one, run.after())
    partly = Run(name, 8, shard=True, fsdp=2)
    assert partly.state.params['fc']['kernel'].addressable_shards[0].data.size == kernel.size // 2
    assert_close(one, partly.after())
    jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim) or pytest.fail(str(s)), run.state, expected)


# A group on a part of a device, on a device, on a few devices, and on all; 'device' and B are special sizes.
@pytest.mark.parametrize(
    ('name', 'devices', 'options', 'same'),
    [
        slow('rfn_sam', 8, {'group_size': 16}, {'group_size': 16}),
        slow('rfn_sam', 4, {'group_size': 'device'}, {'group_size': B // 4}),
        slow('rfn_sam', 8, {'group_size': B}, {}),
        slow('rfn_sam', 2, {'group_size': 4}, {'group_size': 4}),
        slow('rfn_esam', 8, {'group_size': 4}, {'group_size': 4}),
        slow('rfn_esam', 4, {'group_size': 16}, {'group_size': 16}),
        slow('random_sam', 4, {'group_size': 4}, {'group_size': 4}),
        slow('random_sam', 8, {'group_size': 16}, {'group_size': 16}),
        slow('rfn_looksam', 8, {'group_size': 4}, {'group_size': 4}),
        slow('rfn_looksam', 2, {'group_size': 16}, {'group_size': 16}),
        slow('friendly_sam', 8, {'group_size': 8, 'shard': True}, {'group_size': 8}),
    ],
)
def test_groups_do_not_depend_on_the_number_of_devices(name, devices, options, same):
    assert_close(result(name, devices, **options), result(name, 1, **same))


@pytest.mark.accelerator
@pytest.mark.parametrize(('m', 'options'), [(8, {'devices': 8, 'group_size': 8}), (B, {'devices': 1})])
def test_steps_equal_a_loop_over_groups(m, options):
    rho = 0.3
    state, metrics = result('rfn_sam', **options)
    variables = classifier(NORMALIZED).variables
    w, stats = variables['params'], variables['batch_stats']
    velocity = jax.tree.map(jnp.zeros_like, w)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(w, stats, x, y):
        z, new = NORMALIZED.apply({'params': w, 'batch_stats': stats}, x, train=True, mutable=['batch_stats'])
        return -jnp.mean(jax.nn.log_softmax(z)[jnp.arange(len(y)), y]), new['batch_stats']

    for t in range(2):
        x = (jnp.asarray(examples().images[t : t + B], jnp.float32) / 255 - 0.4) / 0.3
        y = examples().labels[t : t + B]
        perturbed, moved, norms = [], [], []
        for start in range(0, B, m):
            part = (x[start : start + m], y[start : start + m])
            g, new = gradient(w, stats, *part)
            norm = np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(g)))
            top = jax.tree.map(lambda a, b, norm=norm: a + rho * b / norm, w, g)
            perturbed.append(gradient(top, stats, *part)[0])
            moved.append(new)
            norms.append(norm)
        g, stats = (jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees) for trees in (perturbed, moved))
        velocity = jax.tree.map(lambda v, a, b: 0.9 * v + a + 5e-4 * b, velocity, g, w)
        w = jax.tree.map(lambda a, v: a - 0.1 * v, w, velocity)
    assert_close((state.params, state.batch_stats), (w, stats))
    np.testing.assert_allclose(metrics['gradient_norm'], np.mean(norms), rtol=1e-5)
    assert int(metrics['ascent_count']) == int(state.step) == 2


@pytest.mark.parametrize(
    ('module', 'devices', 'options', 'same'),
    [
        # Without batch normalization, dividing the batch changes nothing.
        slow(PLAIN, 8, {'micro_batch_size': 8}, {}),
        slow(PLAIN, 1, {'micro_batch_size': 8}, {}),
        slow(PLAIN, 2, {'group_size': 16, 'micro_batch_size': 4}, {'group_size': 16}),
        # With it, each micro-batch is normalized by itself, and the running statistics are updated by the mean.
        slow(NORMALIZED, 8, {'micro_batch_size': 8}, {'micro_batch_size': 8}),
    ],
)
def test_micro_batches_accumulate_and_share_the_perturbation(module, devices, options, same):
    assert_close(result('rfn_sam', devices, module=module, **options), result('rfn_sam', 1, module=module, **same))


def test_micro_batches_update_the_statistics_by_the_mean_of_theirs():
    state, _ = Run('sgd', 1, micro_batch_size=8).after(1)
    x = (jnp.asarray(examples().images[:B], jnp.float32) / 255 - 0.4) / 0.3
    apply = functools.partial(NORMALIZED.apply, classifier(NORMALIZED).variables, train=True, mutable=['batch_stats'])
    moved = [apply(x[i :: B // 8])[1]['batch_stats'] for i in range(B // 8)]
    assert_close(state.batch_stats, jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *moved))


@pytest.mark.slow
def test_esam_descends_on_the_selected_examples_only():
    found = []
    for devices in (1, 8):
        run = Run(optim.esam(0.3, gamma=0.25), devices)
        text = run.compiled().as_text()
        assert f'f32[{B // devices},4,4,8]' in text
        # A second pass over a quarter of the batch, shared by the devices.
        assert f'f32[{B // 4 // devices},4,4,8]' in text
        found.append(run.after())
    assert_close(*found)


def test_a_sharded_state_gathers_parameters_and_not_activations():
    text = Run('rfn_sam', 8, shard=True).compiled().as_text()
    assert f'f32[{B},4,4,8]' not in text
    assert f'f32[{B // 8},4,4,8]' in text


@pytest.mark.slow
@pytest.mark.parametrize(('batch', 'group_size', 'devices'), [(24, 8, 8), (48, 8, 4)])
def test_devices_of_a_row_share_a_group(batch, group_size, devices):
    run = Run('rfn_sam', devices, group_size=group_size, batch=batch)
    shares = group_size // (devices // math.gcd(batch // group_size, devices))
    text = run.compiled().as_text()
    assert f'f32[{shares},4,4,8]' in text  # the output of the convolution on a device
    assert f'f32[{group_size},4,4,8]' not in text
    assert_close(result('rfn_sam', 1, group_size=group_size, batch=batch), run.after())


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        slow('rfn_sam', {}),
        ('rfn_sam', {'group_size': 8}),
        slow('rfn_friendly_sam', {'group_size': 8}),
        slow('rfn_friendly_sam', {'micro_batch_size': 8}),
        slow('rfn_looksam', {'group_size': 8}),
    ],
)
def test_a_step_that_is_not_finite_leaves_everything_finite(name, options):
    state, metrics = Run(name, 1, augment=lambda x, k: x.at[3].set(jnp.nan), **options).after()
    for leaf in jax.tree.leaves((state.params, state.batch_stats)):
        assert np.all(np.isfinite(leaf))
    assert int(metrics['skipped_count']) == 2
    assert not np.isfinite(metrics['loss'])


@pytest.mark.slow
def test_optax_wrappers_work_with_groups():
    injected = optax.inject_hyperparams(optim.rfn_sam)(rho=0.3)
    run = Run(optax.chain(injected, optax.apply_if_finite(optax.identity(), 3)), 4, group_size=8)
    before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), run.state.opt_state)
    state, _ = run.after()
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state.opt_state) == before
    assert_close(state.params, result('rfn_sam', 4, group_size=8)[0].params)


def test_a_step_compiles_once_and_donates_the_state():
    calls = []

    def counted(images, keys):
        calls.append(keys)
        return images

    run = Run('rfn_sam', 1, augment=counted)
    for _ in range(4):
        before = run.state
        run.after(1)
    assert len(calls) == 1
    assert before.params['fc']['kernel'].is_deleted()
    assert not classifier(NORMALIZED).variables['params']['fc']['kernel'].is_deleted()


def test_an_optimizer_without_extra_arguments_is_accepted():
    mesh, c, tx = sharding.data_mesh(jax.devices()[:1]), classifier(PLAIN), optax.scale(-0.1)
    step = training.train_step(PLAIN, c.mean, c.std, tx, lambda x, k: x, mesh)
    state = sharding.replicate(training.create(c, tx), mesh)
    new, values = step(state, batch_of(examples(), np.arange(B)), rng.key_for(0, 'augment', 1))
    assert np.isfinite(values['loss'])
    assert not np.array_equal(new.params['fc']['kernel'], c.variables['params']['fc']['kernel'])


def test_an_average_after_the_descent_is_donated_with_the_state():
    state, _ = Run('sam', 1, descent=optax.chain(DESCENT, optim.swa())).after(3)
    average = optim.average_params(state.opt_state)
    assert np.abs(average['fc']['kernel'] - state.params['fc']['kernel']).max() > 1e-4


# Costs.


@pytest.mark.parametrize(
    ('name', 'module', 'group_size', 'expected'),
    [
        slow('sgd', PLAIN, None, 1),
        slow('rfn_sam', PLAIN, None, 2),
        slow('rfn_sam', PLAIN, 'device', 1),
        slow('rfn_sam', PLAIN, 2, 1),
        slow('rfn_sam', NORMALIZED, 'device', 1),
        slow('rfn_gsam', NORMALIZED, 4, 1),
        # Forward and backward of the one normalization layer, in addition to the gradients.
        slow('sgd', NORMALIZED, None, 1 + 2),
        ('rfn_sam', NORMALIZED, None, 2 * (1 + 2)),
    ],
)
def test_the_number_of_all_reduces(name, module, group_size, expected):
    compiled = Run(name, 8, module=module, group_size=group_size).compiled()
    assert all_reduces(compiled) == expected
    assert not re.search(COLLECTIVES_OF_SHARDS, compiled.as_text())


@pytest.mark.slow
def test_joined_reductions_cost_no_communication(monkeypatch):
    def built():
        run = Run('rfn_sam', 8)
        lowered = run.lowered()
        return run, lowered.as_text().count('concatenate'), lowered.compile()

    _, concatenations, compiled = built()
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')  # there, small arrays are joined before they are reduced
    joined, more, joined_compiled = built()
    assert more > concatenations
    assert all_reduces(joined_compiled) == all_reduces(compiled)
    assert not re.search(COLLECTIVES_OF_SHARDS, joined_compiled.as_text())
    assert_close(joined.after(), result('rfn_sam', 1))


@pytest.mark.slow
def test_one_step_of_rfn_needs_at_most_a_copy_of_parameters_and_gradients_more_than_sgd():
    module = models.MODELS.make('mlp', num_classes=10, widths=(512, 512, 512))
    runs = [Run(name, 1, module=module) for name in ('rfn_sam', 'sgd')]

    def peak(run):
        m = run.compiled().memory_analysis()
        return m.temp_size_in_bytes + m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(runs[0].state.params))
    assert 0 < peak(runs[0]) - peak(runs[1]) <= 2 * size


def assert_refused(message, minimizer, batch_size=B, **sizes):
    """The recipe and the step refuse these sizes with the same message."""
    with pytest.raises(errors.InputError, match=message):
        recipe_of(minimizer, batch_size, **sizes)
    with pytest.raises(errors.InputError, match=message):
        Run(optim.MINIMIZERS.make_from(minimizer), 1, batch=batch_size, **sizes).after(1)


def recipe_of(minimizer, batch_size=B, **sizes):
    return training.Recipe(
        epochs=1, batch_size=batch_size, learning_rate=0.1, momentum=0.9, weight_decay=0, decay_epochs=(),
        decay_factor=0.1, minimizer=minimizer, **sizes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('sizes', 'message'),
    [
        ({'group_size': 5}, "group_size must be a divisor of batch_size 32, 'device' or None, got 5"),
        ({'group_size': 0}, "group_size must be a divisor of batch_size 32, 'device' or None, got 0"),
        ({'group_size': 'devices'}, "group_size must be .* got 'devices'"),
        ({'micro_batch_size': 5}, 'micro_batch_size must divide the 32 examples that share a perturbation, got 5'),
        ({'group_size': 8, 'micro_batch_size': 16}, 'micro_batch_size must divide the 8 examples .* got 16'),
    ],
)
def test_sizes_that_are_not_divisors_are_refused(sizes, message):
    assert_refused(message, {'name': 'rfn_sam'}, **sizes)


@pytest.mark.parametrize(
    ('sizes', 'options', 'kept'),
    [
        ({'micro_batch_size': 8}, {'gamma': 0.4}, 13),
        ({'group_size': 16, 'micro_batch_size': 4}, {'gamma': 0.6}, 10),
        ({'group_size': 8, 'micro_batch_size': 2}, {'name': 'rfn_esam', 'gamma': 0.3}, 3),
        ({'batch_size': 24, 'micro_batch_size': 8}, {}, 12),  # the gamma of the paper
    ],
)
def test_micro_batches_must_divide_what_esam_keeps(sizes, options, kept):
    spec, size = {'name': 'esam', **options}, sizes['micro_batch_size']
    of_a_gradient = rf'the {kept} examples of a gradient \(esam .* or be at least {kept}, got {size}'
    assert_refused(f'micro_batch_size must divide {of_a_gradient}', spec, **sizes)
    recipe_of(spec, **sizes | {'micro_batch_size': None})
    recipe_of({'name': 'sam'}, **sizes)


@pytest.mark.slow
def test_esam_may_keep_fewer_examples_than_a_micro_batch():
    recipe_of({'name': 'esam', 'gamma': 0.25}, micro_batch_size=16)
    minimizer = optim.esam(0.3, gamma=0.25)
    pieces = Run(minimizer, 1, module=PLAIN, micro_batch_size=16).after()
    assert_close(pieces, Run(minimizer, 1, module=PLAIN).after())


def test_the_state_of_a_minimizer_that_runs_per_group_must_not_hold_a_key():
    keeps_a_key = optax.GradientTransformation(lambda params: jax.random.PRNGKey(0), lambda g, key, _: (g, key))
    run = Run(optax.chain(optim.rfn_sam(), keeps_a_key), 1, group_size=8)
    message = r'got uint32\[2\] at \[1\]: move the transformation that keeps it to the descent'
    with pytest.raises(errors.InputError, match=message):
        run.after(1)


def test_groups_need_an_optimizer_that_tells_where_the_minimizer_ends():
    tx, mesh = optax.chain(optim.rfn_sam(), DESCENT), sharding.data_mesh(jax.devices()[:1])
    with pytest.raises(errors.InputError, match=r'group_size 8 needs an optim\.Optimizer'):
        training.train_step(NORMALIZED, (0.5,), (0.3,), tx, lambda x, k: x, mesh, group_size=8)
