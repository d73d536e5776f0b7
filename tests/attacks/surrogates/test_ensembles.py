import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from small_networks import COTANGENT, FUNCTION, IMAGES, KEYS, LABELS, attack

from rfn_jax import models
from rfn_jax.attacks.surrogates.ensembles import CheckpointCycle, Ensemble, checkpoint_cycle
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.attacks.surrogates.skip_gradient import skip_gradient
from rfn_jax.core import losses
from rfn_jax.core.errors import InputError


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_members_of_any_architecture_are_fused():
    members = [small_networks.classifier('mlp', seed) for seed in (0, 1)]
    members += [small_networks.classifier('vgg')]
    z = np.float64([small_networks.logits_of(member) for member in members])
    np.testing.assert_allclose(small_networks.logits_of(Ensemble(members)), z.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(small_networks.logits_of(Ensemble(members, 'losses')), z, atol=1e-6)
    found = small_networks.logits_of(Ensemble(tuple(members), 'probabilities'))
    np.testing.assert_allclose(found, np.log(softmax(z).mean(axis=0)), atol=1e-5)


def test_probabilities_are_finite_where_a_member_is_sure():
    network = small_networks.classifier('mlp')
    bias = network.variables['params']['fc']['bias']
    variables = jax.tree.map(lambda leaf: leaf, network.variables)
    variables['params']['fc'] = network.variables['params']['fc'] | {'bias': bias.at[0].set(1000.0)}
    found = small_networks.logits_of(Ensemble((network, network.replace(variables=variables)), 'probabilities'))
    assert np.all(np.isfinite(found))


def loss_of(fuse, z, labels):
    if fuse == 'losses':
        return jnp.mean(jax.vmap(lambda z: losses.cross_entropy(z, labels))(z), axis=0)
    z = jnp.mean(z, axis=0) if fuse == 'logits' else jnp.log(jnp.mean(jax.nn.softmax(z), axis=0))
    return losses.cross_entropy(z, labels)


@pytest.mark.parametrize('fuse', ['logits', 'probabilities', 'losses'])
def test_an_attack_maximizes_the_fused_loss(fuse):
    members = small_networks.classifier('mlp'), small_networks.classifier('mlp', 1)

    def loss(x):
        return jnp.sum(loss_of(fuse, jnp.stack([member(x) for member in members]), LABELS))

    g = np.asarray(jax.jit(jax.grad(loss))(IMAGES))
    expected = IMAGES + small_networks.EPS / 2 * g / np.sqrt(np.sum(g**2, (1, 2, 3), keepdims=True))
    inside = attack(lambda surrogate: Ensemble((surrogate, members[1]), fuse), steps=1)
    np.testing.assert_allclose(inside(members[0], IMAGES, LABELS, KEYS), expected, atol=1e-6)
    found = jax.jit(attack(steps=1))(Ensemble(members, fuse), IMAGES[1:3], LABELS[1:3], KEYS[1:3])
    np.testing.assert_allclose(found, expected[1:3], atol=1e-6)
    np.testing.assert_allclose(attack(steps=1)(Ensemble(members, fuse), IMAGES, LABELS, KEYS), expected, atol=1e-6)


def test_members_that_vary_get_their_own_keys_and_the_step():
    network, other = small_networks.classifier('resnet'), small_networks.classifier('mlp')
    ghost, cycle = ghost_network(0.3)(network), checkpoint_cycle([other, small_networks.classifier('mlp', 1)])
    ensemble = Ensemble((ghost, other, cycle, ghost), 'losses')
    assert ensemble.varies
    assert not Ensemble((network, other)).varies
    found = small_networks.logits_of(ensemble, step=1)
    expected = [
        small_networks.logits_of(ghost, IMAGES, jax.vmap(lambda key: jax.random.fold_in(key, 0))(KEYS)),
        small_networks.logits_of(other),
        small_networks.logits_of(cycle, step=1),
        small_networks.logits_of(ghost, IMAGES, jax.vmap(lambda key: jax.random.fold_in(key, 3))(KEYS)),
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.max(np.abs(found[0] - found[3])) > 1e-3


def test_interceptions_reach_an_ensemble_of_classifiers_only():
    network = small_networks.classifier('resnet')
    sgm = skip_gradient(0.3)
    np.testing.assert_allclose(
        small_networks.gradient(sgm(Ensemble((network, network))), IMAGES, COTANGENT)[0],
        small_networks.gradient(Ensemble((sgm(network), sgm(network))), IMAGES, COTANGENT)[0],
        atol=1e-6,
    )
    with pytest.raises(
        InputError, match='skip_gradient needs a Classifier, or a surrogate made of Classifiers, got Ensemble'
    ):
        sgm(Ensemble((network, FUNCTION)))
    np.testing.assert_allclose(
        small_networks.logits_of(Ensemble((network, FUNCTION))), small_networks.logits_of(network) / 2, atol=1e-6
    )


@pytest.mark.parametrize(
    ('members', 'fuse', 'message'),
    [
        ((), 'logits', 'an ensemble needs at least one member, got none'),
        ('one', 'logits', 'members of an ensemble must be a tuple of surrogates, got one surrogate'),
        ('two', 'logit', "unknown way to fuse an ensemble 'logit'; did you mean 'logits'"),
        ('classes', 'logits', 'members of an ensemble must have the same classes, got 5, 4 classes'),
    ],
)
def test_members_are_checked_when_the_ensemble_is_made(members, fuse, message):
    network = small_networks.classifier('mlp')
    other = models.abstract(models.MODELS.make('mlp', num_classes=4), (6, 6, 3), num_classes=4)
    members = {'one': network, 'two': (network, network), 'classes': [network, other]}.get(members, members)
    with pytest.raises(InputError, match=message):
        Ensemble(members, fuse)


def test_classes_of_other_surrogates_are_checked_at_the_call():
    network = small_networks.classifier('mlp')
    wider = jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, jnp.zeros((108, 7)))
    with pytest.raises(InputError, match='members of an ensemble must have the same classes, got 5, 7 classes'):
        attack()(Ensemble((network, wider)), IMAGES, LABELS, KEYS)
    nested = Ensemble((network, Ensemble((network, network), 'losses')))
    with pytest.raises(InputError, match=r'must return logits \[B, K\], got shapes \[\(6, 5\), \(2, 6, 5\)\]'):
        attack()(nested, IMAGES, LABELS, KEYS)


def test_a_cycle_uses_the_checkpoints_one_after_another_in_an_order_that_depends_on_the_seed():
    checkpoints = [small_networks.classifier('mlp', seed) for seed in range(5)]
    z = np.stack([small_networks.logits_of(checkpoint) for checkpoint in checkpoints])

    def order(seed, steps):
        cycle = checkpoint_cycle(checkpoints, seed=seed)
        found = [small_networks.logits_of(cycle, step=step) for step in range(steps)]
        return [int(np.argmin(np.abs(z - f).max(axis=(1, 2)))) for f in found], found

    first, found = order(0, 12)
    np.testing.assert_allclose(found, z[first], atol=1e-6)
    assert sorted(first[:5]) == list(range(5))
    assert first == (first[:5] * 3)[:12]
    orders = [tuple(order(seed, 5)[0]) for seed in range(4)]
    assert orders[0] == tuple(first[:5])
    assert len(set(orders)) > 1


def test_each_step_of_an_attack_on_a_cycle_uses_the_checkpoint_of_that_step_without_recompilation():
    network, traces = small_networks.counted('mlp')
    checkpoints = [small_networks.classifier('mlp', seed, network) for seed in range(6)]
    cycles = [checkpoint_cycle(checkpoints[:3]), checkpoint_cycle(checkpoints[3:], seed=5)]
    crafting = attack()
    traces.clear()
    found = [crafting(cycles[0], IMAGES, LABELS, KEYS)]
    count = len(traces)
    assert 0 < count < 6  # one forward pass in the loop, and not one for each checkpoint
    found.append(crafting(cycles[1], IMAGES, LABELS, KEYS))
    assert len(traces) == count
    for cycle, adversarial in zip(cycles, found, strict=True):
        assert isinstance(cycle, CheckpointCycle)
        np.testing.assert_allclose(adversarial, small_networks.plain_attack(cycle, IMAGES, LABELS, KEYS), atol=1e-6)
    part = jax.jit(crafting)(cycles[0], IMAGES[1:3], LABELS[1:3], KEYS[1:3])
    np.testing.assert_allclose(part, found[0][1:3], atol=1e-6)


def test_surrogate_transforms_act_on_every_checkpoint_of_a_cycle():
    checkpoints = [small_networks.classifier('resnet', seed) for seed in range(2)]
    sgm, cycle = skip_gradient(0.3), checkpoint_cycle(checkpoints)
    assert sgm(cycle).varies
    found = small_networks.gradient(sgm(cycle))
    expected = small_networks.gradient(sgm(checkpoints[int(cycle.order[0])]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_checkpoints_are_checked():
    network = small_networks.classifier('mlp')
    wider = small_networks.classifier('mlp', network=models.MODELS.make('mlp', num_classes=5, widths=(8, 7)))
    with pytest.raises(InputError, match='a cycle of checkpoints needs at least one, got none'):
        checkpoint_cycle([])
    for other in (wider, small_networks.classifier('vgg'), network.replace(mean=(0.1,))):
        with pytest.raises(InputError, match='checkpoint 1 of a cycle differs from checkpoint 0 in architecture'):
            checkpoint_cycle([network, other])
    with pytest.raises(InputError, match='checkpoint 0 of a cycle is not a Classifier but a Partial'):
        checkpoint_cycle([jax.tree_util.Partial(lambda x: x)])
