import jax
import jax.numpy as jnp
import pytest

from rfn_jax import attacks
from rfn_jax.core.errors import InputError


def test_components_by_name():
    attack = attacks.make('mi+di+ti', eps=0.1, steps=3, options={'di': {'rate': 0.9}, 'mi': {'decay': 0.5}})
    assert attack.name == 'mi+di+ti'
    assert attack.gradient_evaluations == 3
    assert [transform.name for transform in attack.transforms] == ['input_diversity']
    assert attacks.compose('').name == 'bim'


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('mi+dii', {}, "unknown attack component 'dii'; did you mean 'di'"),
        ('mi+mi', {}, "each component may appear only once, got 'mi\\+mi'"),
        ('mi+ni', {'options': {'ni': {'decay': 0.5}}}, r'momentum with different decays: \[0\.5, 1\.0\]'),
        ('emi+pgn', {}, 'pgn cannot be combined with another gradient estimate'),
        ('mi+di', {'options': {'ti': {}}}, "options are given for 'ti', which is not among the components"),
        ('mi+', {}, "unknown attack component ''"),
        ('pi+adam', {}, 'ask for more than one direction'),
        ('mi+di', {'options': {'di': None}}, 'options must map names of components to mappings of their options'),
        ('mi+di', {'options': {'di': {'rte': 1}}}, "unknown option of attack component 'di': 'rte'"),
        ('mi+di', {'loss': 'cross'}, "unknown loss 'cross'; did you mean 'cross_entropy'"),
        ('mi+di', {'preset': 'paper'}, 'presets are for named attacks'),
        ('mi+pi', {'norm': 'l2'}, "pi is only defined for the norm 'linf', got 'l2'"),
        ('bim', {'preset': 'torchattack'}, "unknown preset 'torchattack'; did you mean 'torchattacks'"),
        ('sgm', {'preset': 'torchattacks'}, "unknown attack of the preset 'torchattacks': 'sgm'"),
        ('linbp', {}, "attack 'linbp' needs from_layer"),
        ('ila', {}, "attack 'ila' needs layer"),
    ],
)
def test_what_cannot_be_composed(name, options, message):
    with pytest.raises(InputError, match=message):
        attacks.make(name, **options)


def test_a_single_component_is_an_attack_and_order_does_not_matter_for_estimates():
    assert attacks.make('mi', steps=2).name == 'mi'
    for one, other in (('vt+pgn', 'pgn+vt'), ('rap+ni', 'ni+rap')):
        assert attacks.make(one).gradient_evaluations == attacks.make(other).gradient_evaluations


@pytest.mark.parametrize('parts', ['ni', 'vt', 'pgn', 'emi', 'ssa', 'rap'])
def test_neighborhoods_of_l2_attacks_are_as_large_as_the_budget(parts, problem):
    farthest = []

    def logits(variables, images):
        distance = jnp.sqrt(jnp.sum((images - problem.images) ** 2, axis=(1, 2, 3)))
        jax.debug.callback(lambda d: farthest.append(d.max()), distance)
        return problem.apply(variables, images)

    options = {'rap': {'late_start': 0}, 'ssa': {'rho': 0.01}, 'emi': {'radius': 1.0}}.get(parts, {})
    options = {parts: options} if options else {}
    surrogate = jax.tree_util.Partial(logits, problem.variables)
    attack = attacks.compose(
        parts + ('' if parts in ('ni', 'emi') else '+mi'), eps=0.5, norm='l2', steps=3, options=options
    )
    attack(surrogate, problem.images, problem.labels, jax.random.key(7))
    jax.effects_barrier()
    assert 0.05 < max(farthest) < 4 * 0.5
