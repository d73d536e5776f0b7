import pytest
from rfn_jax.configs import cifar10, cifar10_cpu, digits

from rfn_jax.core import errors
from rfn_jax.experiment import plan


@pytest.fixture
def config():
    return digits.get_config().to_dict()


@pytest.mark.parametrize('module', [digits, cifar10, cifar10_cpu])
def test_every_config_of_the_project_is_a_plan(module):
    made = plan.read(module.get_config().to_dict())
    assert len(made.of_role('target')) >= 4
    assert len(made.of_role('validation_target')) >= 2
    names = {network.model for network in made.of_role('target')}
    assert names.isdisjoint(network.model for network in made.of_role('validation_target'))


def test_rho_of_the_optim_section_is_the_one_of_the_training():
    config = digits.get_config()
    config.optim.rho = 0.123
    assert [n.recipe.minimiser for n in plan.read(config.to_dict()).networks if n.training == 'rfn'] == [
        {'name': 'rfn_sam', 'rho': 0.123}
    ] * 3


def test_networks_and_baselines(config):
    made = plan.read(config)
    trainings = [(n.training, n.seed) for n in made.of_role('surrogate')]
    assert trainings == [('sgd', 0), ('sgd', 1), ('sgd', 2), ('rfn', 0), ('rfn', 1), ('rfn', 2)]
    assert made.baselines == ['sgd', 'early_stopped']
    assert made.trainings_of(made.of_role('surrogate')[0]) == ['sgd', 'early_stopped']
    assert made.of_role('surrogate')[3].folder == 'surrogates/resnet-rfn/seed0'


def test_seeds_of_one_training_share_a_recipe_and_so_its_compiled_step(config):
    recipes = {id(n.recipe) for n in plan.read(config).of_role('surrogate')}
    assert len(recipes) == 2


def test_epochs_to_validate():
    validation = plan.Validation(attack={}, examples=1, every_epochs=4)
    assert validation.epochs(10) == [4, 8, 10]
    assert validation.epochs(8) == [4, 8]
    assert validation.epochs(2) == [2]


def _set(path, value):
    def change(config):
        *parents, last = path.split('.')
        for name in parents:
            config = config[name]
        config[last] = value

    return change


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (_set('surrogates.resnet.name', 'resnett'), "unknown model 'resnett'; did you mean 'resnet'"),
        (_set('surrogates.resnet.widhts', (1,)), "unknown option of model 'resnet': 'widhts'; did you mean 'widths'"),
        (_set('attacks.bim.name', 'bmi'), "unknown attack 'bmi'; did you mean 'bim'"),
        (_set('attacks.bim.epsilon', 0.1), "unknown option of attack 'bim': 'epsilon'; did you mean 'eps'"),
        (_set('attacks.bim.eps', -0.1), 'eps must be above 0 and finite, got -0.1'),
        (_set('attacks.bim.steps', 0), 'steps must be a whole number of at least 1, got 0'),
        (_set('attacks.bim.norm', 'linff'), "unknown norm 'linff'; did you mean 'linf'"),
        (_set('data.name', 'digit'), "unknown data set 'digit'; did you mean 'digits'"),
        (_set('trainings.rfn.name', 'rfn_sma'), "unknown minimiser 'rfn_sma'; did you mean 'rfn_sam'"),
        (_set('trainings.rfn.rho', -1.0), 'rho must be at least 0 and finite, got -1.0'),
        (_set('optim.learning_rte', 0.1), "unknown option of optim: 'learning_rte'; did you mean 'learning_rate'"),
        (_set('optim.learning_rate', 0.0), 'learning_rate must be above 0, got 0.0'),
        (_set('optim.momentum', 1.0), r'momentum must be in \[0, 1\), got 1.0'),
        (_set('optim.decay_epochs', (3, 2)), r'decay_epochs must be positive and increasing, got \(3, 2\)'),
        (_set('optim.epochs', 0), 'epochs must be at least 1, got 0'),
        (_set('augmentation.crop_padding', -1), 'crop_padding must be at least 0, got -1'),
        (_set('targets', {}), 'targets must have at least one entry'),
        (_set('targets.vit.modle', {}), "unknown option of target 'vit': 'modle'; did you mean 'model'"),
        (_set('early_stopping', {'early_stopped': 'sdg'}), "'sdg'; did you mean 'sgd'"),
        (_set('early_stopping', {'rfn': 'sgd'}), "early_stopping has the name 'rfn', which is a training"),
        (_set('seeds', 0), 'seeds must be at least 1, got 0'),
        (_set('evaluation.batch_size', 0), 'must be at least 1, got'),
        (_set('evaluatoin', {}), "unknown config section 'evaluatoin'; did you mean 'evaluation'"),
        (lambda config: config.pop('attacks'), 'the config needs attacks'),
        (lambda config: config['optim'].pop('momentum'), 'optim needs momentum'),
        (lambda config: config['validation'].pop('examples'), 'validation needs examples'),
    ],
)
def test_wrong_configs_are_refused_before_anything_runs(config, change, message):
    change(config)
    with pytest.raises(errors.InputError, match=message):
        plan.read(config)
