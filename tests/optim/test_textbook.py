import family
import jax
import numpy as np
import optax
import problems
import pytest
import textbook

from rfn_jax import optim

STEPS, LEARNING_RATE, MOMENTUM = 12, 0.1, 0.9
RISING = optax.linear_schedule(0.05, 0.5, STEPS)
MASKED = {'mask': 'no_biases'}

# The name of a minimizer, the options of its textbook counterpart, and which of them the library takes from its defaults.
VARIANTS = {
    'sam': ('sam', {'rho': 0.05}, {'rho'}),
    'sam in a schedule': ('sam', {'rho': RISING}, set()),
    'sam in three steps': ('sam', {'rho': 0.6, 'ascent_steps': 3}, set()),
    'sam in two steps by layer, masked': ('sam', {'rho': 0.3, 'ascent_steps': 2, 'norm': 'layer', **MASKED}, set()),
    'sam by layer': ('sam', {'rho': 0.2, 'norm': 'layer'}, set()),
    'sam by layer, relative': ('sam', {'rho': 0.2, 'norm': 'relative'}, set()),
    'sam, masked': ('sam', {'rho': 0.4, **MASKED}, set()),
    'rfn_sam': ('rfn_sam', {'rho': 0.4}, {'rho'}),
    'asam': ('asam', {'rho': 0.5, 'eta': 0.01}, {'rho', 'eta'}),
    'asam, masked': ('asam', {'rho': RISING, 'eta': 0.3, **MASKED}, set()),
    'gsam': ('gsam', {'rho': 0.05, 'alpha': 0.4}, {'rho', 'alpha'}),
    'gsam without its second part': ('gsam', {'rho': 0.3, 'alpha': 0}, set()),
    'gsam, masked': ('gsam', {'rho': RISING, 'alpha': 0.8, **MASKED}, set()),
    'looksam': ('looksam', {'rho': 0.05, 'k': 5, 'alpha': 0.7}, {'rho', 'k', 'alpha'}),
    'looksam, each time': ('looksam', {'rho': 0.3, 'k': 1, 'alpha': 0.7}, set()),
    'looksam, masked': ('looksam', {'rho': RISING, 'k': 3, 'alpha': 0.4, **MASKED}, set()),
    'esam': ('esam', {'rho': 0.05, 'beta': 0.5, 'gamma': 0.5}, {'rho', 'beta', 'gamma'}),
    'esam, masked': ('esam', {'rho': RISING, 'beta': 0.7, 'gamma': 0.7, 'seed': 3, **MASKED}, set()),
    'esam on everything': ('esam', {'rho': 0.3, 'beta': 1.0, 'gamma': 1}, set()),
    'esam on all examples': ('esam', {'rho': 0.3, 'beta': 0.6, 'gamma': 1}, set()),
    'friendly_sam': ('friendly_sam', {'rho': 0.05, 'sigma': 1.0, 'decay': 0.9}, {'rho', 'sigma', 'decay'}),
    'friendly_sam, masked': ('friendly_sam', {'rho': RISING, 'sigma': 0.6, 'decay': 0.7, **MASKED}, set()),
    'random_sam': ('random_sam', {'rho': 0.05}, {'rho'}),
    'random_sam, masked': ('random_sam', {'rho': RISING, 'seed': 5, **MASKED}, set()),
}
ON_ACCELERATORS = ('rfn_sam', 'looksam')
LOOPS = ('looksam', 'steps')  # variants whose updates are compiled, since their loops would be compiled at every step


def descent():
    return optax.sgd(LEARNING_RATE, momentum=MOMENTUM)


def path_of(tx, problem, **options):
    """The weights after each step as vectors, `[steps, weights]`; mostly not compiled, unlike in `test_family`."""
    steps = family.train(optax.chain(tx, descent()), problem, STEPS, **options)
    return np.array([textbook.Flat(problem).vector(params) for params, _, _ in steps])


@pytest.fixture(params=problems.PROBLEMS)
def problem(request):
    return problems.PROBLEMS[request.param]()


@pytest.mark.parametrize(
    'variant', [pytest.param(v, marks=[pytest.mark.accelerator] * (v in ON_ACCELERATORS)) for v in VARIANTS]
)
def test_many_steps_equal_the_textbook(variant, problem):
    name, options, defaults = VARIANTS[variant]
    no_biases = jax.tree_util.tree_map_with_path(lambda path, _: 'bias' not in str(path), problem.params)
    textbook_options = options | ({'mask': no_biases} if 'mask' in options else {})
    flat = textbook.Flat(problem)

    def textbook_path(rule):
        return textbook.descend(flat, rule, STEPS, learning_rate=LEARNING_RATE, momentum=MOMENTUM)

    minimizer = optim.MINIMIZERS[name](**{key: value for key, value in options.items() if key not in defaults})
    path = path_of(minimizer, problem, compiled=any(word in variant for word in LOOPS))
    expected = textbook_path(textbook.rule(flat, name.removeprefix('rfn_'), **textbook_options))
    np.testing.assert_allclose(path, expected, rtol=0, atol=1e-5)
    assert np.abs(expected - textbook_path(textbook.rule(flat, 'sgd'))).max() > 1e-3
    assert np.abs(expected[-1] - flat.start).max() > 0.1


def test_every_minimizer_has_a_variant():
    assert {name for name, _, _ in VARIANTS.values()} == {*family.METHODS, 'rfn_sam'}  # other presets: see test_family


# Where operations are fused or optimized differently, the compiler rounds the same sums differently.
UNFUSED = {
    'xla_disable_hlo_passes': 'fusion',
    'xla_cpu_parallel_codegen_split_count': 1,
    'xla_backend_optimization_level': 3,
}


@pytest.mark.slow
def test_radius_zero_is_the_base_optimizer_exactly():
    problem = problems.normalized()
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
