"""Named attacks and compositions of components: what they are made of, and how `make` handles names and options."""

import inspect
import re

import jax
import pytest
from attacks import ascent

from rfn_jax import attacks
from rfn_jax.attacks import ATTACKS, COMPONENTS
from rfn_jax.core import options
from rfn_jax.core.errors import InputError

# The components of each attack; the other attacks are not compositions.
PARTS = {
    'bim': '', 'fgsm': '', 'pgd': 'rs', 'mi_fgsm': 'mi', 'ni_fgsm': 'ni', 'vmi_fgsm': 'mi+vt', 'vni_fgsm': 'ni+vt',
    'di_fgsm': 'mi+di', 'ti_fgsm': 'mi+ti', 'si_ni_fgsm': 'ni+si', 'admix': 'mi+admix', 'ssa': 'mi+ssa',
    'bsr': 'mi+bsr', 'pgn': 'mi+pgn', 'emi_fgsm': 'emi', 'rap': 'mi+rap', 'pi_fgsm': 'pi', 'sgm': 'mi+sgm',
    'ghost': 'mi+ghost', 'linbp': 'mi+linbp',
}  # fmt: skip
ITERATIVE = {'eps', 'step_size', 'steps', 'norm', 'loss', 'targeted', 'restarts', 'chunk_size'}


def own_options(factory):
    """The options of a recipe or component with their defaults and types; without those that it only passes on."""
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: (p.default, p.annotation) for p in parameters if p.name not in ('frame', 'shared')}


def test_every_attack_is_in_the_table():
    assert set(ATTACKS) == {*PARTS, 'ila', 'apgd'}


@pytest.mark.parametrize('name', PARTS)
def test_a_recipe_has_the_options_of_its_components_with_their_defaults_and_documents_them(name):
    recipe = ATTACKS[name]
    parts = [COMPONENTS[part] for part in PARTS[name].split('+') if part]
    assert own_options(recipe) == {k: v for part in parts for k, v in own_options(part).items()}
    shared = ITERATIVE - ({'steps', 'step_size'} if name == 'fgsm' else set())
    assert options.parameters(recipe).keys() == own_options(recipe).keys() | shared
    assert shared <= inspect.signature(attacks.compose).parameters.keys()
    assert all(re.search(rf'^      .*\b{option}\b.*: ', recipe.__doc__, re.MULTILINE) for option in own_options(recipe))


@pytest.mark.parametrize('name', PARTS)
def test_a_recipe_is_the_composition_of_its_components(name):
    needs = {'from_layer': 'fc'} if name == 'linbp' else {}
    attack = attacks.make(name, eps=0.1, norm='linf', restarts=2, chunk_size=3, targeted=True, **needs)
    assert (attack.name, attack.limits) == (name, attacks.Budget(0.1))
    assert (attack.restarts, attack.chunk_size, attack.targeted) == (2, 3, True)
    composed = attacks.compose(PARTS[name], options={'linbp': needs} if needs else None, restarts=2)
    assert [t.name for t in attack.transforms] == [t.name for t in composed.transforms]
    assert len(attack.surrogate_transforms) == len(composed.surrogate_transforms)
    assert attack.start is composed.start
    if name != 'fgsm':
        assert attack.gradient_evaluations == composed.gradient_evaluations


@pytest.mark.parametrize('name', list(ATTACKS))
def test_every_name_makes_an_attack_whose_options_are_checked(name):
    needs = {'linbp': {'from_layer': 'fc'}, 'ila': {'layer': 'fc'}}.get(name, {})
    assert isinstance(attacks.make(name, **needs), attacks.Attack)
    with pytest.raises(InputError, match=f"unknown option of attack '{name}': 'epsilon'; did you mean 'eps'"):
        attacks.make(name, epsilon=0.1, **needs)
    with pytest.raises(InputError, match=f"eps of attack '{name}' must be float, got '0.1'"):
        attacks.make(name, eps='0.1', **needs)
    with pytest.raises(TypeError, match='epsilon'):
        ATTACKS[name](epsilon=0.1, **needs)


def test_specs_of_configs():
    attack = attacks.make_from({'name': 'mi_fgsm', 'preset': 'torchattacks', 'eps': 4 / 255})
    assert (attack.limits.eps, attack.step_size, attack.steps) == (4 / 255, 2 / 255, 10)
    for spec in ('bim', {}, {'name': 3}):
        with pytest.raises(InputError, match='the spec of attack must be a mapping with a name'):
            attacks.make_from(spec)


def test_every_preset_makes_its_attacks():
    for preset, table in attacks.PRESETS.items():
        for name in table:
            needs = {'layer': 'layer1_0'} if name == 'ila' else {}
            attack = attacks.make(name, preset=preset, **needs)
            assert attack.limits.eps == table[name]['eps']


def test_components_by_name():
    attack = attacks.make('mi+di+ti', eps=0.1, steps=3, options={'di': {'rate': 0.9}, 'mi': {'decay': 0.5}})
    assert (attack.name, attack.gradient_evaluations) == ('mi+di+ti', 3)
    assert [transform.name for transform in attack.transforms] == ['input_diversity']
    assert (attacks.compose('').name, attacks.make('mi', steps=2).name) == ('bim', 'mi')
    attack = attacks.make('ni+vt+si+ghost', steps=3, options={'vt': {'neighbors': 2}, 'si': {'copies': 2}})
    assert attack.gradient_evaluations == 3 * 3 * 2
    assert attacks.make('shift', steps=3, options={'shift': {'copies': 4}}).gradient_evaluations == 3 * 4
    for one, other in (('vt+pgn', 'pgn+vt'), ('rap+ni', 'ni+rap')):  # the order of estimates does not matter
        assert attacks.make(one).gradient_evaluations == attacks.make(other).gradient_evaluations


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
        ('mifgsm', {}, "unknown attack 'mifgsm'; did you mean 'mi_fgsm'"),
        ('fgsm', {'steps': 3}, "unknown option of attack 'fgsm': 'steps'"),
    ],
)
def test_what_cannot_be_composed(name, options, message):
    with pytest.raises(InputError, match=message):
        attacks.make(name, **options)


@pytest.mark.parametrize(
    ('components', 'options'),
    [
        ('ni', {}),
        ('vt+mi', {}),
        ('pgn+mi', {}),
        ('emi', {'emi': {'radius': 1.0}}),
        ('ssa+mi', {'ssa': {'rho': 0.01}}),
        ('rap+mi', {'rap': {'late_start': 0}}),
    ],
)
def test_neighborhoods_of_l2_attacks_are_as_large_as_the_budget(components, options, problem):
    farthest = []

    def logits(variables, images):
        jax.debug.callback(lambda x: farthest.append(ascent.lengths(x - problem.images, 'l2').max()), images)
        return problem.apply(variables, images)

    attack = attacks.compose(components, eps=0.5, norm='l2', steps=3, options=options)
    attack(jax.tree_util.Partial(logits, problem.variables), *problem.arguments[1:])
    jax.effects_barrier()
    assert 0.05 < max(farthest) < 4 * 0.5
