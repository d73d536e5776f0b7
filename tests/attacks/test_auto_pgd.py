import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacks import ascent
from quick_attacks import slow

from rfn_jax.attacks import SteppedSurrogate
from rfn_jax.attacks.auto_pgd import apgd, checkpoints, difference_of_logits_ratio
from rfn_jax.core import losses
from rfn_jax.core.errors import InputError

EPS = {'linf': 0.15, 'l2': 1.5}  # large enough for curvature to matter, so that some step sizes are halved
STEPS = {'linf': 12, 'l2': 24}
COUNT = 8


@pytest.fixture(scope='module')
def arguments(problem):
    return problem.surrogate, *(part[:COUNT] for part in problem.arguments[1:])


@functools.cache
def make(norm, loss='cross_entropy', targeted=False):
    return apgd(eps=EPS[norm], norm=norm, steps=STEPS[norm], loss=loss, targeted=targeted)


def loss_of(name, logits, y, target):
    """The loss of one example, as the paper writes it."""
    if name == 'cross_entropy':
        chosen = y if target is None else target
        loss = jnp.log(jnp.sum(jnp.exp(logits))) - logits[chosen]
        return loss if target is None else -loss
    ordered = jnp.sort(logits)[::-1]
    if target is not None:
        return -(logits[y] - logits[target]) / (ordered[0] - (ordered[2] + ordered[3]) / 2 + 1e-12)
    others = jnp.where(jnp.arange(len(logits)) == y, -jnp.inf, logits)
    return -(logits[y] - jnp.max(others)) / (ordered[0] - ordered[2] + 1e-12)


class Textbook:
    """Algorithm 1 of Croce and Hein 2020 for one image, in float64, with the draws of the library.

    `best` is the result, `halvings` are the steps after which the step size was halved, and `is_safe` says that no decision
    (no sign of a gradient and no comparison of two losses) depended on float32 rounding.
    """

    def __init__(self, value_and_grad, original, y, target, key, norm, steps):
        eps = EPS[norm]
        draw = functools.partial(jax.random.uniform, minval=-1.0) if norm == 'linf' else jax.random.normal
        noise = np.asarray(draw(jax.random.fold_in(key, 0), original.shape), np.float64)
        project = functools.partial(ascent.project, original=original, norm=norm, eps=eps)
        self.halvings, self.is_safe, visited = [], True, []
        eta, p = 2 * eps, [0, 0.22]
        while p[-1] < 1:
            p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
        w = [int(np.ceil(round(share * steps, 9))) for share in p]

        def f(x):
            loss, fooled, g = value_and_grad(x, y, target)
            best = max((other for _, other, _ in visited), default=np.inf)
            last = visited[-1][1] if visited else np.inf
            self.is_safe &= min(abs(loss - best), abs(loss - last)) > 1e-6
            self.is_safe &= np.mean(np.abs(g)) > 1e-4
            self.is_safe &= norm == 'l2' or np.min(np.abs(g)) > 1e-5 * np.mean(np.abs(g))
            visited.append((fooled, loss, x))
            return loss, g

        x_before = x = project(original + eps * noise / ascent.lengths(noise, norm))
        loss, g = f(x)
        f_max, x_max, g_max = loss, x, g
        rises, reduced, f_max_before = 0, True, f_max
        for k in range(steps):
            alpha = 0.75 if k else 1.0
            z = ascent.step(x, g, original, norm=norm, eps=eps, alpha=eta)
            x_before, x = x, project(x + alpha * (z - x) + (1 - alpha) * (x - x_before))
            last, (loss, g) = loss, f(x)
            rises += loss > last
            if loss > f_max:
                f_max, x_max, g_max = loss, x, g
            if k + 1 in w:
                period = k + 1 - w[w.index(k + 1) - 1]
                reduced = rises <= 0.75 * period or (not reduced and f_max == f_max_before)
                if reduced:
                    eta, x, g = eta / 2, x_max, g_max
                    self.halvings.append(k + 1)
                rises, f_max_before = 0, f_max
        self.best = max(visited, key=lambda point: point[:2])


@pytest.fixture(scope='module')
def value_and_grad(problem):
    @functools.partial(jax.jit, static_argnums=0)
    def compute(name, x, y, target):
        def loss(x):
            logits = problem.surrogate(x[None])[0]
            return loss_of(name, logits, y, target), logits

        return jax.value_and_grad(loss, has_aux=True)(x)

    def evaluate(name, x, y, target):
        (loss, logits), g = compute(name, x.astype(np.float32), y, target)
        fooled = np.argmax(logits) != y if target is None else np.argmax(logits) == target
        return float(loss), bool(fooled), np.asarray(g, np.float64)

    return evaluate


CASES = list(itertools.product(['cross_entropy', 'dlr'], [False, True], EPS))
QUICK = [
    ('cross_entropy', False, 'linf'),
    ('cross_entropy', False, 'l2'),
    ('cross_entropy', True, 'linf'),
    ('dlr', True, 'l2'),
]


@pytest.mark.parametrize(('loss', 'targeted', 'norm'), [case if case in QUICK else slow(*case) for case in CASES])
def test_it_equals_the_paper_image_by_image(loss, targeted, norm, arguments, value_and_grad):
    targets = (arguments[2] + 1) % 5 if targeted else [None] * COUNT
    found = make(norm, loss, targeted)(*arguments, target_labels=targets if targeted else None)
    compared = []
    for index, (original, y, key, target) in enumerate(zip(*arguments[1:], targets, strict=True)):
        at = functools.partial(value_and_grad, loss)
        key = jax.random.fold_in(key, 0)
        expected = Textbook(at, original.astype(np.float64), y, target, key, norm, STEPS[norm])
        if expected.is_safe:
            np.testing.assert_allclose(found[index], expected.best[2], atol=1e-6, rtol=0)
            compared.append(tuple(expected.halvings))
    assert len(compared) >= 3
    assert len(set(compared)) > 1  # the examples take different paths


def test_the_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10) == (3, 5, 6, 7, 8, 9)
    assert checkpoints(1) == ()
    assert checkpoints(1000) == (220, 410, 570, 700, 800, 870, 930, 990)


def test_of_all_restarts_the_best_image_is_kept(arguments, value_and_grad):
    found = apgd(eps=EPS['l2'], norm='l2', steps=4, restarts=3)(*arguments)
    at = functools.partial(value_and_grad, 'cross_entropy')
    winners = set()
    for index, (original, y, key) in enumerate(zip(*arguments[1:], strict=True)):
        original = original.astype(np.float64)
        runs = [Textbook(at, original, y, None, jax.random.fold_in(key, number), 'l2', 4).best for number in range(3)]
        winner = max(range(3), key=lambda number, runs=runs: runs[number][:2])
        winners.add(winner)
        np.testing.assert_allclose(found[index], runs[winner][2], atol=1e-6, rtol=0)
    assert len(winners) > 1


def test_an_image_that_fools_is_better_than_one_of_larger_loss():
    # Brighter images have a larger loss of class 0, but above a mean of 0.5 they are classified as 0 again.
    def logits(x):
        mean = jnp.mean(x, axis=(1, 2, 3))
        others = -5 + 4.95 * mean
        return jnp.stack([jnp.zeros_like(mean), 0.1 - 0.2 * mean, others, others, others], axis=1)

    images, labels = jnp.full((3, 4, 4, 1), 0.3), jnp.zeros(3, int)
    found = apgd(eps=0.3, steps=10)(logits, images, labels, jax.random.key(0))
    np.testing.assert_array_equal(jnp.argmax(logits(found), axis=1), 1)
    brightest = images + 0.3
    np.testing.assert_array_equal(jnp.argmax(logits(brightest), axis=1), 0)
    assert np.all(losses.cross_entropy(logits(found), labels) < losses.cross_entropy(logits(brightest), labels))


def test_an_ensemble_is_attacked_by_its_mean_loss(problem, arguments):
    def both(v, w, x):
        return jnp.stack([problem.apply(v, x), problem.apply(w, x)])

    ensemble = jax.tree_util.Partial(both, problem.variables, problem.other_variables)
    found = make('linf')(ensemble, *arguments[1:])
    before, after = (np.sum(np.argmax(ensemble(x), axis=-1) != arguments[2], axis=0) for x in (arguments[1], found))
    assert np.all(after >= before)
    assert np.sum(after) > np.sum(before)
    twice = jax.tree_util.Partial(both, problem.variables, problem.variables)
    np.testing.assert_allclose(make('linf')(twice, *arguments[1:]), make('linf')(*arguments), atol=1e-6, rtol=0)


def test_the_last_image_is_evaluated_without_another_step(arguments):
    seen = []

    class Surrogate(SteppedSurrogate):
        def at_step(self, images, keys, step):
            del keys
            jax.debug.callback(lambda step: seen.append(int(step)), step)
            return arguments[0](images)

    jax.tree_util.register_pytree_node(Surrogate, lambda s: ((), None), lambda *_: Surrogate())
    attack = apgd(eps=0.1, steps=4, restarts=2)
    assert attack.gradient_evaluations == 8
    attack(Surrogate(), *arguments[1:])
    jax.effects_barrier()
    assert sorted(seen) == sorted([0, 1, 2, 3, 3] * 2)


@pytest.mark.parametrize('norm', EPS)
def test_the_result_is_in_the_budget_whatever_the_other_images_and_the_order(norm, arguments):
    surrogate, images, labels, keys = arguments
    whole = np.asarray(make(norm)(*arguments))
    lengths = ascent.lengths(whole - images, norm)
    assert np.all(lengths <= EPS[norm] + 1e-6)
    assert np.all(lengths > EPS[norm] / 2)
    assert (np.min(whole), np.max(whole)) == (0, 1)
    rows = np.array([7, 6, 5, 2, 2, 1, 0, 3])
    mixed = make(norm)(surrogate, images[rows], labels[rows], keys[rows])
    np.testing.assert_allclose(mixed, whole[rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize(('loss', 'targeted', 'norm'), QUICK)
def test_a_zero_gradient_leaves_a_finite_image_in_the_budget(loss, targeted, norm, problem, arguments):
    flat = jax.tree_util.Partial(problem.apply, problem.variables | {'dense': jnp.zeros((24, 5))})
    targets = {'target_labels': (arguments[2] + 1) % 5} if targeted else {}
    found = np.asarray(make(norm, loss, targeted)(flat, *arguments[1:], **targets))
    assert np.all(np.isfinite(found))
    assert np.all(ascent.lengths(found - arguments[1], norm) <= EPS[norm] + 1e-6)


@pytest.mark.slow
def test_half_precision_is_kept(problem, arguments):
    surrogate = jax.tree_util.Partial(lambda v, x: problem.apply(v, x.astype(jnp.float32)), problem.variables)
    found = apgd(eps=EPS['linf'], steps=3)(surrogate, arguments[1].astype(np.float16), *arguments[2:])
    assert found.dtype == jnp.float16
    assert np.all(ascent.lengths(found.astype(np.float32) - arguments[1], 'linf') > 0.05)


@pytest.mark.parametrize(('classes', 'targeted'), [(2, False), (3, True)])
def test_the_dlr_loss_needs_enough_classes(classes, targeted, arguments):
    attack = apgd(eps=0.1, steps=1, loss='dlr', targeted=targeted)
    labels = np.zeros(COUNT, int)
    more = {'target_labels': labels + 1} if targeted else {}
    with pytest.raises(InputError, match=f'needs at least {classes + 1} classes, got logits'):
        attack(lambda x: x.reshape(len(x), -1)[:, :classes], arguments[1], labels, arguments[3], **more)


@pytest.mark.parametrize('targeted', [False, True])
def test_the_dlr_loss_is_that_of_the_paper(targeted):
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 6)).astype(np.float32), generator.integers(6, size=50)
    targets = (labels + 1 + generator.integers(5, size=50)) % 6 if targeted else None
    found = difference_of_logits_ratio(logits, labels, targets)
    for index, (z, y) in enumerate(zip(logits, labels, strict=True)):
        expected = loss_of('dlr', z, y, targets[index] if targeted else None)
        assert float(found[index]) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(difference_of_logits_ratio(7 * logits - 3, labels, targets), found, rtol=1e-4, atol=1e-5)
    if not targeted:
        np.testing.assert_array_equal(found > 0, np.argmax(logits, axis=1) != labels)
