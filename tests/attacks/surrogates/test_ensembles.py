import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from attacks import ascent
from attacks.ascent import fold
from quick_attacks import slow
from small_networks import EPS, FUNCTION, IMAGES, KEYS, LABELS, attack, gradient, logits_of

from rfn_jax import models
from rfn_jax.attacks.surrogates.ensembles import CheckpointCycle, Ensemble, checkpoint_cycle
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.attacks.surrogates.skip_gradient import skip_gradient
from rfn_jax.core import losses
from rfn_jax.core.errors import InputError

RESNET = small_networks.classifier('resnet')
MLPS = [small_networks.classifier('mlp', seed) for seed in range(6)]
FOUR_CLASSES = models.abstract(models.MODELS.make('mlp', num_classes=4), (6, 6, 3), num_classes=4)
WIDER = small_networks.classifier('mlp', network=models.MODELS.make('mlp', num_classes=5, widths=(8, 7)))
close = functools.partial(np.testing.assert_allclose, atol=1e-6)


def test_members_of_any_architecture_are_fused():
    members = [*MLPS[:2], small_networks.classifier('vgg'), FUNCTION]
    z = np.float64([logits_of(member) for member in members])
    close(logits_of(Ensemble(members)), z.mean(axis=0))
    close(logits_of(Ensemble(members, 'losses')), z)
    probabilities = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    close(logits_of(Ensemble(tuple(members), 'probabilities')), np.log(probabilities.mean(axis=0)), atol=1e-5)


def test_probabilities_are_finite_where_a_member_is_sure():
    params = MLPS[0].variables['params']
    sure = params | {'fc': params['fc'] | {'bias': params['fc']['bias'].at[0].set(1000.0)}}
    members = MLPS[0], MLPS[0].replace(variables=MLPS[0].variables | {'params': sure})
    assert np.all(np.isfinite(logits_of(Ensemble(members, 'probabilities'))))


def loss_of(fuse, z, labels):
    if fuse == 'losses':
        return jnp.mean(jax.vmap(lambda z: losses.cross_entropy(z, labels))(z), axis=0)
    z = jnp.mean(z, axis=0) if fuse == 'logits' else jnp.log(jnp.mean(jax.nn.softmax(z), axis=0))
    return losses.cross_entropy(z, labels)


@pytest.mark.parametrize('fuse', [slow('logits'), slow('probabilities'), 'losses'])
def test_an_attack_maximizes_the_fused_loss(fuse):
    members, one_step = tuple(MLPS[:2]), attack(steps=1)

    def loss(x):
        return jnp.sum(loss_of(fuse, jnp.stack([member(x) for member in members]), LABELS))

    by_loss = jax.jit(jax.grad(loss))
    expected = ascent.ascend(lambda x, t: by_loss(x), IMAGES, norm='l2', eps=EPS, alpha=EPS / 2, steps=1)
    inside = attack(lambda surrogate: Ensemble((surrogate, members[1]), fuse), steps=1)
    close(inside(members[0], IMAGES, LABELS, KEYS), expected)
    close(one_step(Ensemble(members, fuse), IMAGES, LABELS, KEYS), expected)
    close(jax.jit(one_step)(Ensemble(members, fuse), IMAGES[1:3], LABELS[1:3], KEYS[1:3]), expected[1:3])


def test_members_that_vary_get_their_own_keys_and_the_step():
    ghost, cycle = ghost_network(0.3)(RESNET), checkpoint_cycle(MLPS[:2])
    ensemble = Ensemble((ghost, MLPS[0], cycle, ghost), 'losses')
    assert ensemble.varies
    assert not Ensemble((RESNET, MLPS[0])).varies
    found = logits_of(ensemble, step=1)
    ghosts = [logits_of(ghost, IMAGES, fold(KEYS, number)) for number in (0, 3)]
    close(found, [ghosts[0], logits_of(MLPS[0]), logits_of(cycle, step=1), ghosts[1]])
    assert np.max(np.abs(found[0] - found[3])) > 1e-3


@pytest.mark.parametrize(
    ('members', 'fuse', 'message'),
    [
        ((), 'logits', 'an ensemble needs at least one member, got none'),
        (RESNET, 'logits', 'members of an ensemble must be a tuple of surrogates, got one surrogate'),
        ((RESNET, RESNET), 'logit', "unknown way to fuse an ensemble 'logit'; did you mean 'logits'"),
        ([RESNET, FOUR_CLASSES], 'logits', 'members of an ensemble must have the same classes, got 5, 4 classes'),
    ],
)
def test_members_are_checked_when_the_ensemble_is_made(members, fuse, message):
    with pytest.raises(InputError, match=message):
        Ensemble(members, fuse)


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (jax.tree_util.Partial(FUNCTION.func, jnp.zeros((108, 7))), 'must have the same classes, got 5, 7 classes'),
        (Ensemble(MLPS[:2], 'losses'), r'must return logits \[B, K\], got shapes \[\(6, 5\), \(2, 6, 5\)\]'),
    ],
)
def test_classes_of_other_surrogates_are_checked_at_the_call(other, message):
    with pytest.raises(InputError, match=message):
        attack()(Ensemble((MLPS[0], other)), IMAGES, LABELS, KEYS)


def test_a_cycle_uses_the_checkpoints_one_after_another_in_an_order_that_depends_on_the_seed():
    z = np.stack([logits_of(checkpoint) for checkpoint in MLPS[:5]])

    def order(seed, steps):
        cycle = checkpoint_cycle(MLPS[:5], seed=seed)
        found = [logits_of(cycle, step=step) for step in range(steps)]
        return [int(np.argmin(np.abs(z - f).max(axis=(1, 2)))) for f in found], found

    first, found = order(0, 12)
    close(found, z[first])
    assert sorted(first[:5]) == list(range(5))
    assert first == (first[:5] * 3)[:12]
    assert order(0, 5)[0] == first[:5]
    assert any(order(seed, 5)[0] != first[:5] for seed in (1, 2, 3))


def test_each_step_of_an_attack_on_a_cycle_uses_the_checkpoint_of_that_step_without_recompilation():
    cycles, crafting = (checkpoint_cycle(MLPS[:3]), checkpoint_cycle(MLPS[3:], seed=5)), attack()
    found = [crafting(cycles[0], IMAGES, LABELS, KEYS)]
    with jax.no_tracing():
        found.append(crafting(cycles[1], IMAGES, LABELS, KEYS))
    for cycle, adversarial in zip(cycles, found, strict=True):
        assert isinstance(cycle, CheckpointCycle)
        close(adversarial, small_networks.plain_attack(cycle, IMAGES, LABELS, KEYS))


@pytest.mark.slow
def test_surrogate_transforms_act_on_every_checkpoint_of_a_cycle():
    checkpoints = [RESNET, small_networks.classifier('resnet', 1)]
    sgm, cycle = skip_gradient(0.3), checkpoint_cycle(checkpoints)
    assert sgm(cycle).varies
    jax.tree.map(close, gradient(sgm(cycle)), gradient(sgm(checkpoints[int(cycle.order[0])])))


@pytest.mark.parametrize(
    ('checkpoints', 'message'),
    [
        ([], 'a cycle of checkpoints needs at least one, got none'),
        ([FUNCTION], 'checkpoint 0 of a cycle is not a Classifier but a Partial'),
        *(
            ([MLPS[0], other], 'checkpoint 1 of a cycle differs from checkpoint 0 in architecture')
            for other in (WIDER, RESNET, MLPS[0].replace(mean=(0.1,)))
        ),
    ],
)
def test_checkpoints_are_checked(checkpoints, message):
    with pytest.raises(InputError, match=message):
        checkpoint_cycle(checkpoints)
