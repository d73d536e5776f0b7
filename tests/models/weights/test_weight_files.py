import io
import json
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import torch_files

from rfn_jax.core import errors
from rfn_jax.models.weights import files

RNG = np.random.default_rng(0)
STATE = {'conv.weight': RNG.normal(size=(2, 3)).astype(np.float32), 'bn.steps': np.array(7)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'f'


def write_torch(path, tree, write=torch_files.write_zip):
    """A file of `torch.save`; arrays anywhere in `tree` become tensors."""
    storages = {}

    def converted(value):
        if isinstance(value, np.ndarray):
            key = str(len(storages))
            storages[key] = value
            return torch_files.tensor(key, value)
        return {name: converted(part) for name, part in value.items()} if isinstance(value, dict) else value

    write(path, converted(tree), storages)


def write_old_torch(path, tree):
    write_torch(path, tree, torch_files.write_stream)


def write_npz(path, tree, save=np.savez):
    with path.open('wb') as file:
        save(file, **tree)


def write_compressed_npz(path, tree):
    write_npz(path, tree, np.savez_compressed)


def assert_same(state, expected):
    assert set(state) == set(expected)
    for key, array in expected.items():
        torch_files.assert_same(state[key], array)


def refusal(path, **options):
    with pytest.raises(errors.InputError) as raised:
        files.read_state_dict(path, **options)
    assert str(path) in str(raised.value)
    assert '\n' not in str(raised.value)
    return str(raised.value).replace(str(path), 'PATH')


WRITERS = pytest.mark.parametrize(
    'write', [write_torch, write_old_torch, write_npz, write_compressed_npz, files.write_safetensors]
)


@WRITERS
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.npz', ''])
def test_the_format_is_recognized_by_content(tmp_path, write, suffix):
    path = tmp_path / f'weights{suffix}'
    write(path, STATE)
    assert_same(files.read_state_dict(path), STATE)
    assert_same(files.read_state_dict(str(path)), STATE)


@pytest.mark.parametrize('entry', files.ENTRIES)
@pytest.mark.parametrize('write', [write_torch, write_old_torch])
def test_the_entry_with_the_weights_is_found(path, write, entry):
    write(path, {'epoch': 3, 'best': np.array(0.5), 'optimizer': {'w': np.zeros(2)}, entry: STATE})
    assert_same(files.read_state_dict(path), STATE)


def test_the_first_of_several_entries_is_taken_and_others_by_name(path):
    other = {'other': np.ones(3, np.float16)}
    tree = {'ema': other, 'net': {}, 'model_ema': other, 'model': STATE, 'generator': other, 'state_dict': 'no'}
    write_torch(path, tree)
    assert_same(files.read_state_dict(path), STATE)
    for entry in ('ema', 'model_ema', 'generator'):
        assert_same(files.read_state_dict(path, entry=entry), other)
    for entry in ('net', 'state_dict', 'absent'):
        assert "entries with tensors: 'ema', 'model_ema', 'model', 'generator'" in refusal(path, entry=entry)
    write_torch(path, {'generator': STATE, 'discriminator': STATE, 'epoch': 1})
    assert "entries with tensors: 'generator', 'discriminator'; choose one" in refusal(path)
    for write in (write_torch, write_npz, files.write_safetensors):
        write(path, STATE)
        assert "no tensors in an entry 'model'; it has no entries" in refusal(path, entry='model')


def test_entries_that_are_not_tensors_are_ignored(path):
    write_torch(path, STATE | {'extra': None, 'name': 'x', 'list': [1], 'nested': {'w': np.zeros(1)}})
    assert_same(files.read_state_dict(path), STATE)
    write_npz(path, STATE | {'name': np.array('x'), 'date': np.array('2020-01-01', 'M8[D]')})
    assert_same(files.read_state_dict(path), STATE)


@pytest.mark.parametrize(
    ('keys', 'short'),
    [
        *((f'{prefix}.a {prefix}.b', 'a b') for prefix in ('module', '_orig_mod', 'backbone.net', 'model')),
        ('model._orig_mod.module.module.a model._orig_mod.module.module.b', 'a b'),
        ('module.model.a module.model.module.b', 'a module.b'),
        *((keys, keys) for keys in ('module.a b', 'model.a head.b', 'modules.a modules.b')),
        ('n_averaged module.a', 'a'),
        ('module. module.a', ' a'),
    ],
)
def test_prefixes_of_wrappers(path, keys, short):
    write_torch(path, {key: np.full(2, i) for i, key in enumerate(keys.split(' '))})
    state = files.read_state_dict(path)
    assert list(state) == short.split(' ')
    assert [array[0] for array in state.values()] == list(range(len(keys.split(' '))))[-len(state) :]


@pytest.mark.parametrize('tree', [{}, [], {'epoch': 1, 'model': {}}, [np.zeros(1).tolist()], None, {'n_averaged': 1}])
def test_a_file_without_tensors(path, tree):
    write_torch(path, tree)
    assert refusal(path) == 'PATH holds no tensors at the top level or in the usual entries'


class Live:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_nothing_in_an_npz_is_unpickled(path):
    write_npz(path, {'w': np.array([Live(path.with_name('marker'))], dtype=object)})
    assert 'Object arrays cannot be loaded' in refusal(path)
    assert not path.with_name('marker').exists()


def test_layouts_byte_orders_and_devices(path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = {'fortran': np.asfortranarray(array), 'strided': array[:, ::2], 'big': array.astype('>f4')}
    given |= {'scalar': np.float16(1), 'jax': jnp.asarray(array), 't': array.T}
    for write in (write_npz, files.write_safetensors):
        write(path, given)
        state = files.read_state_dict(path)
        assert_same(state, {key: np.asarray(x) for key, x in given.items()} | {'big': array})
        assert all(value.flags.c_contiguous and value.dtype.isnative for value in state.values())


@pytest.mark.parametrize('dtype', files.SAFETENSORS_DTYPES.values(), ids=files.SAFETENSORS_DTYPES)
def test_every_type_of_safetensors(path, dtype):
    state = {'w': RNG.integers(0, 2, (3, 2)).astype(dtype), 's': np.ones((), dtype), 'empty': np.zeros((0, 3), dtype)}
    files.write_safetensors(path, state)
    assert_same(files.read_state_dict(path), state)


def test_metadata_of_safetensors(path):
    for metadata in ({'model': 'resnet18', 'format': 'pt'}, None):
        files.write_safetensors(path, STATE, metadata)
        with safetensors.safe_open(path, 'np') as file:
            assert (file.metadata() or None) == metadata


def test_types_that_safetensors_lacks(path):
    with pytest.raises(errors.InputError, match='complex128'):
        files.write_safetensors(path, {'w': np.zeros(2, np.complex128)})
    assert not path.exists()
    header = json.dumps({'w': {'dtype': 'F8_E8M0', 'shape': [2], 'data_offsets': [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, 'little') + header + b'12')
    assert 'F8_E8M0' in refusal(path)
    with pytest.raises(errors.RunError):
        files.write_safetensors(path / 'g', STATE)


def test_a_header_whose_length_begins_like_a_pickle(path):
    for length in range(1, 300):
        files.write_safetensors(path, {'k' * length: np.zeros(1, np.float32)})
        if path.read_bytes().startswith(files.PICKLE):
            break
    assert path.read_bytes().startswith(files.PICKLE)
    assert list(files.read_state_dict(path)) == ['k' * length]


def tar(name):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode='w') as archive:
        archive.addfile(tarfile.TarInfo(name))
    return content.getvalue()


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'PATH is empty'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n', 'a Git LFS pointer'),
        (b'<!DOCTYPE html>\n<html></html>', 'a web page'),
        (b'\xef\xbb\xbf\r\n <HTML><body>', 'a web page'),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', 'a web page'),
        (tar('sys_info'), 'before 0.1.10'),
        *((content, 'has an unknown format') for content in (b'\x89HDF\r\n\x1a\n', b'\x1f\x8b\x08', b'hello')),
        (b'\x80\x02}q\x00.', 'not one that torch.save wrote'),
        (b'\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.', "asks for 'posix.system'"),
        (b'PK\x03\x04', 'damaged'),
        (b'\x02\0\0\0\0\0\0\0{', 'damaged safetensors'),
        (b'\x02\0\0\0\0\0\0\0{]', 'damaged safetensors'),
        (b'\x02\0\0\0\0\0\0\0{}', 'holds no tensors'),
    ],
)
def test_files_that_hold_no_weights(path, content, reason):
    assert 'No such file' in refusal(path)
    path.write_bytes(content)
    assert reason in refusal(path)
    assert 'directory' in refusal(path.parent)


@pytest.mark.filterwarnings('ignore:invalid escape:DeprecationWarning')
@WRITERS
def test_damaged_files(path, write):
    write(path, STATE)
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        refusal(path)
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            files.read_state_dict(path)
        except errors.InputError:
            refused += 1
    assert refused > 15


def test_the_state_of_wrapped_networks_of_torch(path):
    torch = pytest.importorskip('torch')
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    parallel = torch.nn.DataParallel(network)
    averaged, compiled = torch.optim.swa_utils.AveragedModel(parallel), torch.nn.ModuleDict({'_orig_mod': network})
    for wrapped in (network, parallel, averaged, compiled):
        torch.save({'model': wrapped.state_dict(), 'epoch': 1}, path)
        expected = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
        assert_same(files.read_state_dict(path), expected)


def test_torch_reads_what_is_written(path):
    torch = pytest.importorskip('torch')
    safetensors_torch = pytest.importorskip('safetensors.torch')
    files.write_safetensors(path, STATE | {'half': np.arange(4).astype(jnp.bfloat16)})
    tensors = safetensors_torch.load_file(path)
    assert_same({key: tensors[key].numpy() for key in STATE}, STATE)
    assert tensors['half'].dtype == torch.bfloat16
    assert tensors['half'].tolist() == [0, 1, 2, 3]
