import functools
import operator

import pytest

from rfn_jax.configs import cifar10, cifar10_cpu, cifar10_cpu_architectures, cifar10_cpu_attacks, digits
from rfn_jax.core import errors
from rfn_jax.experiment import pinning, plan, reading

REMOVED = object()


def read(config):
    return reading.read(pinning.pinned(config))


@pytest.fixture
def config():
    return digits.get_config().to_dict()


@pytest.mark.parametrize('module', [digits, cifar10, cifar10_cpu, cifar10_cpu_attacks, cifar10_cpu_architectures])
def test_every_config_of_the_project_is_a_plan(module):
    made = read(module.get_config().to_dict())
    assert len(made.of_role('target')) >= 4
    assert len(made.of_role('validation_target')) >= 2
    names = {network.model for network in made.of_role('target')}
    assert names.isdisjoint(network.model for network in made.of_role('validation_target'))


def test_rho_of_the_optim_section_is_the_one_of_the_training():
    config = digits.get_config()
    config.optim.rho = 0.123
    minimizers = [n.recipe.minimizer for n in read(config.to_dict()).networks if n.training == 'rfn']
    assert minimizers == [{'name': 'rfn_sam', 'rho': 0.123}] * 3


def test_networks_and_baselines(config):
    made = read(config)
    trainings = [(n.training, n.seed) for n in made.of_role('surrogate')]
    assert trainings == [('sgd', 0), ('sgd', 1), ('sgd', 2), ('rfn', 0), ('rfn', 1), ('rfn', 2)]
    assert made.baselines == ('sgd', 'early_stopped')
    assert made.trainings_of(made.of_role('surrogate')[0]) == ['sgd', 'early_stopped']
    assert made.of_role('surrogate')[3].folder == 'surrogates/resnet-rfn/seed0'


def test_baselines_are_those_that_the_config_names_and_go_first(config):
    config['trainings'] = {'asam': {'name': 'asam'}, 'sgd': {'name': 'sgd'}, 'zero': {'name': 'sam', 'rho': 0.0}}
    config['baselines'] = ['zero']
    made = read(config)
    assert made.baselines == ('zero',)
    assert list(dict.fromkeys(n.training for n in made.of_role('surrogate'))) == ['zero', 'asam', 'sgd']


def test_a_definition_holds_the_entries_of_the_network_and_the_shared_sections(config):
    by_folder = {network.folder: network.definition for network in read(config).networks}
    surrogate, target = by_folder['surrogates/resnet-rfn/seed1'], by_folder['targets/vit']
    assert (surrogate['trainings.rfn.rho'], surrogate['optim.epochs'], surrogate['data.name']) == (0.4, 40, 'digits')
    assert (target['targets.vit.optim.epochs'], target['targets.vit.model.width']) == (30, 48)
    assert not any(key.startswith(('trainings', 'surrogates', 'optim.rho')) for key in target)
    for section in (config, config['targets']['vit'], config['validation_targets']['mlp_deep']):
        section['optim'] |= {'steps_per_call': 5, 'streaming': True, 'workers': 2, 'seeds_at_once': 2}
    config['evaluation']['examples'] = 3
    config['attacks']['bim']['steps'] = 3
    assert {network.folder: network.definition for network in read(config).networks} == by_folder


def test_epochs_to_validate():
    recipe = read(digits.get_config().to_dict()).networks[-1].recipe
    assert (recipe.epochs, recipe.decay_epochs) == (40, [20, 30])
    validation = plan.ValidationSettings(attack={}, examples=1, every_epochs=12)
    assert validation.epochs(recipe) == [12, 21, 24, 31, 36, 40]  # 21 and 31: the first ones after the decays


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('surrogates.resnet.name', 'resnett', "unknown model 'resnett'; did you mean 'resnet'"),
        ('surrogates.resnet.widhts', (1,), "unknown option of model 'resnet': 'widhts'; did you mean 'widths'"),
        ('attacks.bim.name', 'bmi', "unknown attack 'bmi'; did you mean 'bim'"),
        ('attacks.bim.epsilon', 0.1, "unknown option of attack 'bim': 'epsilon'; did you mean 'eps'"),
        ('attacks.bim.eps', -0.1, 'eps must be a finite number above 0, got -0.1'),
        ('attacks.bim.steps', 0, 'steps must be an integer of at least 1, got 0'),
        ('attacks.bim.norm', 'linff', "unknown norm 'linff'; did you mean 'linf'"),
        ('data.name', 'digit', "unknown data set 'digit'; did you mean 'digits'"),
        ('trainings.rfn.name', 'rfn_sma', "unknown minimizer 'rfn_sma'; did you mean 'rfn_sam'"),
        ('trainings.rfn.rho', -1.0, 'rho must be .*at least 0.*, got -1.0'),
        ('optim.learning_rte', 0.1, "'learning_rte'; did you mean 'learning_rate'"),
        ('optim.learning_rate', 0.0, 'learning_rate must be a finite number above 0, got 0.0'),
        ('optim.momentum', 1.0, r'momentum must be .*, got 1.0'),
        ('optim.decay_epochs', (3, 2), r'decay_epochs must be positive and increasing, got \(3, 2\)'),
        ('optim.epochs', 0, 'epochs must be an integer of at least 1, got 0'),
        ('augmentation.crop_padding', -1, 'crop_padding must be an integer of at least 0, got -1'),
        ('targets', {}, 'targets must have at least one entry'),
        ('targets.vit.modle', {}, "unknown option of target 'vit': 'modle'; did you mean 'model'"),
        ('early_stopping', {'early_stopped': 'sdg'}, "'sdg'; did you mean 'sgd'"),
        ('early_stopping', {'rfn': 'sgd'}, "early_stopping uses the name 'rfn', which is already a training"),
        ('baselines', ['sgd', 'rnf'], "unknown training in baselines: 'rnf'; did you mean 'rfn'"),
        ('baselines', 'sgd', "baselines of the config must be .*, got 'sgd'"),
        ('seeds', 0, 'seeds must be an integer of at least 1, got 0'),
        ('evaluation.batch_size', 0, 'evaluation.batch_size must be an integer of at least 1, got 0'),
        ('optim.epochs', 25, r'decay_epochs \(20, 30\) must be below epochs, 25'),
        ('optim.epochs', 2.5, 'epochs of optim must be int, got 2.5'),
        ('optim.epochs', '40', "epochs of optim must be int, got '40'"),
        ('optim.decay_epochs', 5, 'decay_epochs of optim must be .*, got 5'),
        ('optim.learning_rate', 'x', "learning_rate of optim must be float, got 'x'"),
        ('optim.batch_size', 0, 'batch_size must be an integer of at least 1, got 0'),
        ('optim', None, 'optim of the config must be Mapping, got None'),
        ('seeds', '3', "seeds of the config must be int, got '3'"),
        ('seed', -1, 'seed must be an integer from 0 to'),
        ('early_stopping', None, 'early_stopping of the config must be Mapping, got None'),
        ('evaluation.batch_size', '8', "batch_size of evaluation must be int, got '8'"),
        ('surrogates.resnet.widths', 16, "widths of model 'resnet' must be .*, got 16"),
        ('surrogates.resnet.num_classes', 3, 'num_classes of model .* cannot be set in a config'),
        ('surrogates.resnet.dtype', object(), 'a config may hold only plain values'),
        ('targets.vit', None, "target 'vit' needs a mapping of options, got None"),
        ('attacks.bim', {'eps': 0.1}, 'the spec of attack must be a mapping with a name, got'),
        ('attacks.bim.eps', 0.003, 'eps 0.003 is below 1/255'),
        ('surrogates', {'../up': {'name': 'mlp'}}, r"only letters, digits, _ and \., and not dots alone, got '../up'"),
        ('surrogates', {'..': {'name': 'mlp'}}, r"and not dots alone, got '\.\.'"),
        ('targets.vit.optim.rho', 0.4, "target 'vit' is trained with SGD, which has no rho"),
        ('data', {}, "unknown data set 'None'; known: arrays, cifar10, digits"),
        ('augmentation', {'crop_padding': 'x'}, "crop_padding of augmentation must be int, got 'x'"),
        ('attacks.bim.eps', 16, r'eps must be at most 1, .* got 16; did you mean 16/255'),
        (
            'surrogates.resnet.dtype',
            'fp16',
            "dtype of model 'resnet' must be one of float32, bfloat16, float16, got 'fp16'",
        ),
        ('trainings.rfn.mask', 'Dense', "unknown mask 'Dense'; known: no_biases"),
        ('validation_targets.mlp', {'model': {'name': 'mlp'}}, "validation target 'mlp' is the target 'mlp'"),
        ('evaluatoin', {}, "unknown option of the config: 'evaluatoin'; did you mean 'evaluation'"),
        ('attacks', REMOVED, 'the config needs attacks'),
        ('optim.momentum', REMOVED, 'optim needs momentum'),
        ('validation.examples', REMOVED, 'validation needs examples'),
    ],
)
def test_wrong_configs_are_refused_before_anything_runs(config, key, value, message):
    *parents, last = key.split('.')
    section = functools.reduce(operator.getitem, parents, config)
    if value is REMOVED:
        del section[last]
    else:
        section[last] = value
    with pytest.raises(errors.InputError, match=message):
        read(config)
