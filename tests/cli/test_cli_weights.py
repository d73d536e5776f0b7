import importlib.util
import json
import pickle

import jax
import numpy as np
import pytest

import rfn_jax
from rfn_jax import models, storage
from rfn_jax.cli import main
from rfn_jax.core import digests
from rfn_jax.models import weights

SMALL = ('--model=cifar_resnet', '--option=depth=8', '--option', 'width=2', '--num_classes=5')
MEAN_STD = ('--mean=0.5,0.4,0.3', '--std=0.2,0.25,0.3')


@pytest.fixture(scope='module')
def classifier():
    module = models.MODELS.make('cifar_resnet', num_classes=5, depth=8, width=2)
    template = models.abstract(module, (32, 32, 3), num_classes=5, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: np.float32(rng.uniform(0.1, 1, leaf.shape)), template.variables)
    return template.replace(variables=variables)


@pytest.fixture
def file(classifier, tmp_path):
    path = tmp_path / 'common.npz'
    state = weights.to_state_dict(classifier, naming='pytorch_cifar')
    np.savez(path, **{f'module.{key}': value for key, value in state.items()})
    return path


def test_import_and_export_give_the_same_weights_again(classifier, file, tmp_path, capsys):
    out = tmp_path / 'imported'
    assert main.main(['import-weights', *SMALL, *MEAN_STD, '--weights', str(file), '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    assert 'naming pytorch_cifar' in printed
    assert f"{{'network': '{out}'}}" in printed
    loaded = rfn_jax.load(out)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, classifier.variables)
    assert (loaded.module, loaded.mean, loaded.std) == (classifier.module, classifier.mean, classifier.std)
    origin = storage.read_network(out).origin
    assert (origin['file'], origin['sha256']) == ('common.npz', digests.of_file(file))

    exported = tmp_path / 'out.safetensors'
    arguments = ['--checkpoint', str(out), '--out', str(exported)]  # with the naming of the imported file
    assert main.main(['export-weights', *arguments]) == 0
    printed = capsys.readouterr().out
    assert 'naming pytorch_cifar; before the network, normalize images in [0, 1] with mean [0.5, 0.4, 0.3]' in printed
    with np.load(file) as saved:
        state = weights.read_state_dict(exported)
        assert {f'module.{key}' for key in state} == set(saved)
        for key, value in state.items():
            np.testing.assert_array_equal(value, saved[f'module.{key}'])
    header = exported.read_bytes()
    about = json.loads(json.loads(header[8 : 8 + int.from_bytes(header[:8], 'little')])['__metadata__']['rfn_jax'])
    assert about['architecture'] == {'name': 'cifar_resnet', 'depth': 8, 'width': 2}


def test_allowed_problems_are_reported(file, tmp_path, capsys, refused):
    arguments = ['import-weights', *SMALL, *MEAN_STD, f'--weights={tmp_path / "more.npz"}', f'--out={tmp_path / "w"}']
    with np.load(file) as saved:
        state = {key: value for key, value in saved.items() if 'linear.bias' not in key}
    # The prefix stays, since not all keys have it.
    np.savez(tmp_path / 'more.npz', extra=np.zeros(3), **state)
    assert 'does not match the model' in refused(*arguments)
    assert not (tmp_path / 'w').exists()
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    np.savez(tmp_path / 'more.npz', extra=np.zeros(3), **state)
    line = refused(*arguments, '--allow=missing')
    assert "unused: extra; does the model need other options? Allow 'unused' to use the tensors that match" in line
    assert main.main([*arguments, '--allow=missing,unused']) == 0
    printed = capsys.readouterr().out
    assert 'missing: linear.bias' in printed
    assert 'unused: extra' in printed
    origin = storage.read_network(tmp_path / 'w').origin
    assert (origin['missing'], origin['unused'], origin['misshaped']) == (['linear.bias'], ['extra'], [])


def test_only_weights_with_torchvision_names_have_a_default_normalization(tmp_path, refused):
    options = {'patch_size': 8, 'width': 4, 'depth': 1, 'heads': 1, 'mlp_width': 4}
    module = models.MODELS.make('vit_b_16', num_classes=3, **options)
    vit = models.initialize(module, jax.random.key(0), (16, 16, 3), num_classes=3)
    flags = [f'--option={name}={value}' for name, value in options.items()]
    flags += ['--model=vit_b_16', '--num_classes=3', '--image_size=16', f'--weights={tmp_path / "x.npz"}']
    np.savez(tmp_path / 'x.npz', **weights.to_state_dict(vit, naming='timm'))
    line = refused('import-weights', *flags, f'--out={tmp_path / "timm"}')
    assert "the naming 'timm', whose authors may use another normalization than the default; pass --mean and" in line
    assert main.main(['import-weights', *flags, f'--out={tmp_path / "timm"}', '--mean=0.5', '--std=0.5']) == 0
    np.savez(tmp_path / 'x.npz', **weights.to_state_dict(vit, naming='torchvision'))
    assert main.main(['import-weights', *flags, f'--out={tmp_path / "torchvision"}']) == 0
    found = [storage.read_network(tmp_path / name) for name in ('timm', 'torchvision')]
    assert [network.mean for network in found] == [(0.5,), (0.485, 0.456, 0.406)]
    assert found[0].variables_sha256 == found[1].variables_sha256


class Hostile:
    """Pickles as a call that would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_hostile_file_is_refused_and_does_nothing(tmp_path, refused):
    (tmp_path / 'hostile.pth').write_bytes(pickle.dumps({'state_dict': Hostile(tmp_path / 'written')}, protocol=2))
    paths = (f'--weights={tmp_path / "hostile.pth"}', f'--out={tmp_path / "w"}')
    assert 'hostile.pth' in refused('import-weights', *SMALL, *MEAN_STD, *paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['hostile.pth']


GIVEN = (*SMALL, '--weights=x', '--out=w')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), 'rfn-jax import-weights needs --model'),
        (('--model=resnet18',), 'rfn-jax import-weights needs --weights'),
        (('--model=resnet18', '--weights=x'), 'rfn-jax import-weights needs --out'),
        (('--modle=resnet18',), "Unknown command line flag 'modle'. Did you mean: model ?"),
        (('--num_classes=ten',), 'flag --num_classes=ten'),
        ((*GIVEN, 'more'), "unexpected argument 'more'; see rfn-jax import-weights --help"),
        (GIVEN, 'needs the --mean and --std that its weights were trained with'),
        ((*GIVEN, '--mean=0.5'), '--mean and --std belong together'),
        ((*GIVEN, '--mean=a', '--std=1'), '--mean and --std must be numbers'),
        (('--model=resnet', *GIVEN[-2:]), '--model=resnet needs --num_classes, since it has no default'),
        (('--model=resent18', *GIVEN[-2:]), "unknown model 'resent18'; did you mean"),
        ((*GIVEN, *MEAN_STD, '--option=depht=3'), "'depht'; did you mean 'depth'"),
        ((*GIVEN, *MEAN_STD, '--option=dtype=f33'), "dtype of model 'cifar_resnet'"),
        ((*GIVEN, *MEAN_STD, '--option=name=vit'), '--option must be NAME=VALUE'),
        ((*GIVEN, *MEAN_STD, '--option=depth'), '--option must be NAME=VALUE'),
        ((*GIVEN, '--mean=125', '--std=63'), 'divide them by 255 if they are for images in'),
        ((*GIVEN, '--mean=nan', '--std=1'), '--mean and --std must be for images in [0, 1], got (nan,)'),
        ((*GIVEN, *MEAN_STD, '--weights=nothing.pth'), 'could not read nothing.pth: No such file'),
        (
            ('--model=resnet18', *GIVEN[-2:], '--num_classes=0'),
            '--image_size and --channels must be at least 1, got 0, 224, 3',
        ),
        (('--checkpoint=x', '--out=x.pth'), '--out must end in .safetensors, got'),
        (('--checkpoint=x', '--out=x.safetensors'), 'x is not a network directory'),
        (('--checkpoint=x',), 'rfn-jax export-weights needs --out'),
    ],
)
def test_bad_input_is_one_line(arguments, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = 'export-weights' if '--checkpoint=x' in arguments else 'import-weights'
    assert message in refused(command, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('out', 'status', 'message'),
    [
        ('gs://bucket/w.safetensors', 2, 'gs://bucket/w.safetensors needs a package that is not installed'),
        ('ftp://bucket/w.safetensors', 2, "unknown kind of bucket 'ftp'"),
        ('{}/file/w.safetensors', 1, 'could not write'),
    ],
)
def test_an_unwritable_file_is_reported_before_the_weights_are_converted(
    classifier, tmp_path, refused, monkeypatch, out, status, message
):
    spec = {'name': 'cifar_resnet', 'depth': 8, 'width': 2}
    storage.save_network(tmp_path / 'w', classifier, architecture=spec, image_shape=(32, 32, 3))
    (tmp_path / 'file').write_text('')
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'gcsfs' else find_spec(name))
    monkeypatch.setattr(weights, 'to_state_dict', None)  # calling it fails
    arguments = ('export-weights', f'--checkpoint={tmp_path / "w"}', f'--out={out.format(tmp_path)}')
    assert message in refused(*arguments, status=status)
