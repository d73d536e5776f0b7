import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
import problems
import pytest
import textbook

from rfn_jax import optim

STEPS, LEARNING_RATE, MOMENTUM = 20, 0.1, 0.9
RISING = optax.linear_schedule(0.05, 0.5, STEPS)

# The name of a minimizer, the options of its textbook counterpart, and which of them the library takes from its defaults.
VARIANTS = {
    'sam': ('sam', {'rho': 0.05}, {'rho'}),
    'sam in a schedule': ('sam', {'rho': RISING}, set()),
    'sam in three steps': ('sam', {'rho': 0.6, 'ascent_steps': 3}, set()),
    'sam in two steps by layer with a mask': (
        'sam',
        {'rho': 0.3, 'ascent_steps': 2, 'norm': 'layer', 'mask': 'no_biases'},
        set(),
    ),
    'sam by layer': ('sam', {'rho': 0.2, 'norm': 'layer'}, set()),
    'sam by layer, relative': ('sam', {'rho': 0.2, 'norm': 'relative'}, set()),
    'sam with a mask': ('sam', {'rho': 0.4, 'mask': 'no_biases'}, set()),
    'rfn_sam': ('rfn_sam', {'rho': 0.4}, {'rho'}),
    'asam': ('asam', {'rho': 0.5, 'eta': 0.01}, {'rho', 'eta'}),
    'asam with a mask': ('asam', {'rho': RISING, 'eta': 0.3, 'mask': 'no_biases'}, set()),
    'rfn_asam': ('rfn_asam', {'rho': 4.0, 'eta': 0.01}, {'rho', 'eta'}),
    'gsam': ('gsam', {'rho': 0.05, 'alpha': 0.4}, {'rho', 'alpha'}),
    'gsam with a mask': ('gsam', {'rho': RISING, 'alpha': 0.8, 'mask': 'no_biases'}, set()),
    'rfn_gsam': ('rfn_gsam', {'rho': 0.4, 'alpha': 0.4}, {'rho', 'alpha'}),
    'looksam': ('looksam', {'rho': 0.05, 'k': 5, 'alpha': 0.7}, {'rho', 'k', 'alpha'}),
    'looksam with a mask': ('looksam', {'rho': RISING, 'k': 3, 'alpha': 0.4, 'mask': 'no_biases'}, set()),
    'rfn_looksam': ('rfn_looksam', {'rho': 0.4, 'k': 5, 'alpha': 0.7}, {'rho', 'k', 'alpha'}),
    'esam': ('esam', {'rho': 0.05, 'beta': 0.5, 'gamma': 0.5}, {'rho', 'beta', 'gamma'}),
    'esam with a mask': ('esam', {'rho': RISING, 'beta': 0.7, 'gamma': 0.7, 'seed': 3, 'mask': 'no_biases'}, set()),
    'esam on all examples': ('esam', {'rho': 0.3, 'beta': 0.6, 'gamma': 1}, set()),
    'rfn_esam': ('rfn_esam', {'rho': 0.4, 'beta': 0.5, 'gamma': 0.5}, {'rho', 'beta', 'gamma'}),
    'friendly_sam': ('friendly_sam', {'rho': 0.05, 'sigma': 1.0, 'decay': 0.9}, {'rho', 'sigma', 'decay'}),
    'friendly_sam with a mask': (
        'friendly_sam',
        {'rho': RISING, 'sigma': 0.6, 'decay': 0.7, 'mask': 'no_biases'},
        set(),
    ),
    'rfn_friendly_sam': ('rfn_friendly_sam', {'rho': 0.4, 'sigma': 1.0, 'decay': 0.9}, {'rho', 'sigma', 'decay'}),
    'random_sam': ('random_sam', {'rho': 0.05}, {'rho'}),
    'random_sam with a mask': ('random_sam', {'rho': RISING, 'seed': 5, 'mask': 'no_biases'}, set()),
}


def descent():
    return optax.sgd(LEARNING_RATE, momentum=MOMENTUM)


def path_of(tx, problem, *, loops=False):
    """The weights after each step as vectors, `[steps, weights]`.

    Only the gradient functions are compiled, once for all methods; `test_family` runs the methods under jit.
    """
    flat, params, state, path = textbook.Flat(problem), problem.params, tx.init(problem.params), []
    arguments = {name: compiled(f) for name, f in family.extra_args(problem).items()}
    for _ in range(STEPS):
        g = arguments['grad_fn'](params)
        with jax.disable_jit(loops):  # a cond or a loop would be compiled at every step
            updates, state = tx.update(g, state, params, **arguments)
        params = optax.apply_updates(params, updates)
        path.append(flat.vector(params))
    return np.array(path)


def compiled(f):
    """Keeps a compiled function compiled even when jit is disabled."""

    def call(*arguments):
        with jax.disable_jit(False):
            return f(*arguments)

    return call


def without_biases(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: 'bias' not in jax.tree_util.keystr(path), params)


@pytest.fixture(params=problems.PROBLEMS)
def problem(request):
    return problems.PROBLEMS[request.param]()


ON_ACCELERATORS = ('rfn_sam', 'looksam')


@pytest.mark.parametrize(
    'variant', [pytest.param(v, marks=[pytest.mark.accelerator] * (v in ON_ACCELERATORS)) for v in VARIANTS]
)
def test_twenty_steps_equal_the_textbook(variant, problem):
    name, options, defaults = VARIANTS[variant]
    textbook_options = options | ({'mask': without_biases(problem.params)} if 'mask' in options else {})
    flat = textbook.Flat(problem)

    def textbook_path(rule):
        return textbook.descend(flat, rule, STEPS, learning_rate=LEARNING_RATE, momentum=MOMENTUM)

    minimizer = optim.MINIMIZERS[name](**{key: value for key, value in options.items() if key not in defaults})
    loops = 'looksam' in name or 'ascent_steps' in options
    path = path_of(optax.chain(minimizer, descent()), problem, loops=loops)
    expected = textbook_path(getattr(textbook, name.removeprefix('rfn_'))(flat, **textbook_options))
    np.testing.assert_allclose(path, expected, rtol=0, atol=1e-5)
    assert np.abs(expected - textbook_path(textbook.sgd(flat))).max() > 1e-3
    assert np.abs(expected[-1] - flat.start).max() > 0.1


def test_every_minimizer_has_a_variant():
    assert {name for name, _, _ in VARIANTS.values()} == set(family.NAMES)


SAME = {
    'looksam(k=1) is sam': (optim.looksam(0.3, k=1), optim.sam(0.3)),
    'gsam(alpha=0) is sam': (optim.gsam(0.3, alpha=0), optim.sam(0.3)),
    'friendly_sam(sigma=0) is sam': (optim.friendly_sam(0.3, sigma=0), optim.sam(0.3)),
    'esam(beta=1, gamma=1) is sam': (optim.esam(0.3, beta=1, gamma=1), optim.sam(0.3)),
}


@pytest.mark.parametrize('pair', SAME)
def test_a_special_case(pair, problem):
    one, other = (optax.chain(minimizer, descent()) for minimizer in SAME[pair])
    np.testing.assert_allclose(path_of(one, problem), path_of(other, problem), rtol=0, atol=1e-6)


def test_asam_where_all_weights_have_size_one_is_sam(problem):
    params = jax.tree.map(lambda w: jnp.where(w >= 0, 1.0, -1.0), problem.params)
    gradient, _ = problem.jitted

    def update(tx):
        return tx.update(gradient(params), tx.init(params), params, grad_fn=gradient)[0]

    for eta in (0.01, 0.5):
        family.assert_close(update(optim.asam(0.3, eta=eta)), update(optim.sam((1 + eta) * 0.3)))


# Where operations are fused or optimized differently, the compiler rounds the same sums differently.
UNFUSED = {
    'xla_disable_hlo_passes': 'fusion',
    'xla_cpu_parallel_codegen_split_count': 1,
    'xla_backend_optimization_level': 3,
}


def test_radius_zero_is_the_base_optimizer_exactly(problem):
    gradient = problem.grad_fn
    options = {'esam': {'gamma': 1}}  # below 1, esam leaves out examples whatever the radius

    def update(params, states):
        g, found = gradient(params), {}
        for name in family.METHODS:
            for kind, rho in (('schedule', optax.constant_schedule(0.0)), ('number', 0)):
                tx = optim.MINIMIZERS[name](rho, **options.get(name, {}))
                found[name, kind], state = tx.update(g, states[name], params, grad_fn=gradient)
            states[name] = state
        return found, states

    base, update = (jax.jit(f, compiler_options=UNFUSED) for f in (gradient, update))
    params, state = problem.params, descent().init(problem.params)
    states = {name: optim.MINIMIZERS[name]().init(params) for name in family.METHODS}
    for _ in range(STEPS):
        g = base(params)
        found, states = update(params, states)
        for key, updates in found.items():
            family.assert_close(updates, g, atol=0, message=str(key))
        updates, state = descent().update(g, state)
        params = optax.apply_updates(params, updates)
