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


def write_npz(path, tree):
    with path.open('wb') as file:
        np.savez(file, **tree)


def write_compressed_npz(path, tree):
    with path.open('wb') as file:
        np.savez_compressed(file, **tree)


def assert_same(state, expected):
    assert set(state) == set(expected)
    for key, array in expected.items():
        assert state[key].dtype == array.dtype
        assert state[key].shape == array.shape
        assert state[key].tobytes() == np.ascontiguousarray(array).tobytes()


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
def test_the_entry_with_the_weights_is_found(tmp_path, write, entry):
    write(tmp_path / 'f', {'epoch': 3, 'best': np.array(0.5), 'optimizer': {'w': np.zeros(2)}, entry: STATE})
    assert_same(files.read_state_dict(tmp_path / 'f'), STATE)


def test_the_first_of_several_entries_is_taken_and_others_by_name(tmp_path):
    other = {'other': np.ones(3, np.float16)}
    tree = {'ema': other, 'net': {}, 'model_ema': other, 'model': STATE, 'generator': other, 'state_dict': 'no'}
    write_torch(tmp_path / 'f', tree)
    assert_same(files.read_state_dict(tmp_path / 'f'), STATE)
    for entry in ('ema', 'model_ema', 'generator'):
        assert_same(files.read_state_dict(tmp_path / 'f', entry=entry), other)
    for entry in ('net', 'state_dict', 'absent'):
        assert "entries with tensors: 'ema', 'model_ema', 'model', 'generator'" in refusal(tmp_path / 'f', entry=entry)


def test_an_entry_of_a_file_without_entries(tmp_path):
    for write in (write_torch, write_npz, files.write_safetensors):
        write(tmp_path / 'f', STATE)
        assert "no tensors in an entry 'model'; it has no entries" in refusal(tmp_path / 'f', entry='model')


def test_weights_in_an_entry_of_an_unknown_name(tmp_path):
    write_torch(tmp_path / 'f', {'generator': STATE, 'discriminator': STATE, 'epoch': 1})
    assert "entries with tensors: 'generator', 'discriminator'; choose one" in refusal(tmp_path / 'f')


def test_entries_that_are_not_tensors_are_ignored(tmp_path):
    write_torch(tmp_path / 'f', STATE | {'extra': None, 'name': 'x', 'list': [1], 'nested': {'w': np.zeros(1)}})
    assert_same(files.read_state_dict(tmp_path / 'f'), STATE)
    write_npz(tmp_path / 'f', STATE | {'name': np.array('x'), 'date': np.array('2020-01-01', 'M8[D]')})
    assert_same(files.read_state_dict(tmp_path / 'f'), STATE)


@pytest.mark.parametrize(
    ('keys', 'short'),
    [
        (('module.a', 'module.b'), ('a', 'b')),
        (('_orig_mod.a', '_orig_mod.b'), ('a', 'b')),
        (('backbone.net.a', 'backbone.net.b'), ('a', 'b')),
        (('model.a', 'model.b'), ('a', 'b')),
        (('model._orig_mod.module.module.a', 'model._orig_mod.module.module.b'), ('a', 'b')),
        (('module.model.a', 'module.model.module.b'), ('a', 'module.b')),
        (('module.a', 'b'), ('module.a', 'b')),
        (('model.a', 'head.b'), ('model.a', 'head.b')),
        (('modules.a', 'modules.b'), ('modules.a', 'modules.b')),
        (('n_averaged', 'module.a'), ('a',)),
        (('module.', 'module.a'), ('', 'a')),
    ],
)
def test_prefixes_of_wrappers(tmp_path, keys, short):
    write_torch(tmp_path / 'f', {key: np.full(2, i) for i, key in enumerate(keys)})
    state = files.read_state_dict(tmp_path / 'f')
    assert tuple(state) == short
    assert [array[0] for array in state.values()] == list(range(len(keys)))[-len(short) :]


@pytest.mark.parametrize('tree', [{}, [], {'epoch': 1, 'model': {}}, [np.zeros(1).tolist()], None, {'n_averaged': 1}])
def test_a_file_without_tensors(tmp_path, tree):
    write_torch(tmp_path / 'f', tree)
    assert refusal(tmp_path / 'f') == 'PATH holds no tensors at the top level or in the usual entries'


def test_arrays_of_another_layout_in_an_npz(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_npz(
        tmp_path / 'f', {'fortran': np.asfortranarray(array), 'big': array.astype('>f4'), 'scalar': np.float16(1)}
    )
    state = files.read_state_dict(tmp_path / 'f')
    assert_same(state, {'fortran': array, 'big': array, 'scalar': np.float16(1)})
    assert state['fortran'].flags.c_contiguous
    assert state['big'].dtype.isnative


class Live:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_nothing_in_an_npz_is_unpickled(tmp_path):
    write_npz(tmp_path / 'f', {'w': np.array([Live(tmp_path / 'marker')], dtype=object)})
    assert 'Object arrays cannot be loaded' in refusal(tmp_path / 'f')
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('dtype', files.SAFETENSORS_DTYPES.values(), ids=files.SAFETENSORS_DTYPES)
def test_every_type_of_safetensors(tmp_path, dtype):
    state = {
        'w': RNG.integers(0, 2, (3, 2)).astype(dtype),
        'scalar': np.ones((), dtype),
        'empty': np.zeros((0, 3), dtype),
    }
    files.write_safetensors(tmp_path / 'f', state)
    assert_same(files.read_state_dict(tmp_path / 'f'), state)


def test_layouts_and_devices_in_safetensors(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = {'t': array.T, 'strided': array[:, ::2], 'jax': jnp.asarray(array), 'scalar': np.float32(3)}
    files.write_safetensors(tmp_path / 'f', state | {'big': array.astype('>f4')})
    assert_same(
        files.read_state_dict(tmp_path / 'f'), {key: np.asarray(x) for key, x in state.items()} | {'big': array}
    )


def test_metadata_of_safetensors(tmp_path):
    files.write_safetensors(tmp_path / 'f', STATE, {'model': 'resnet18', 'format': 'pt'})
    with safetensors.safe_open(tmp_path / 'f', 'np') as file:
        assert file.metadata() == {'model': 'resnet18', 'format': 'pt'}
    files.write_safetensors(tmp_path / 'f', STATE)
    with safetensors.safe_open(tmp_path / 'f', 'np') as file:
        assert not file.metadata()


def test_types_that_safetensors_lacks(tmp_path):
    with pytest.raises(errors.InputError, match='complex128'):
        files.write_safetensors(tmp_path / 'f', {'w': np.zeros(2, np.complex128)})
    assert not (tmp_path / 'f').exists()
    header = json.dumps({'w': {'dtype': 'F8_E8M0', 'shape': [2], 'data_offsets': [0, 2]}}).encode()
    (tmp_path / 'f').write_bytes(len(header).to_bytes(8, 'little') + header + b'12')
    assert 'F8_E8M0' in refusal(tmp_path / 'f')


def test_a_file_that_cannot_be_written_is_absent(tmp_path):
    (tmp_path / 'f').write_bytes(b'')
    with pytest.raises(errors.RunError):
        files.write_safetensors(tmp_path / 'f' / 'g', STATE)


def test_a_header_whose_length_begins_like_a_pickle(tmp_path):
    for length in range(1, 300):
        files.write_safetensors(tmp_path / 'f', {'k' * length: np.zeros(1, np.float32)})
        if (tmp_path / 'f').read_bytes().startswith(files.PICKLE):
            break
    assert (tmp_path / 'f').read_bytes().startswith(files.PICKLE)
    assert list(files.read_state_dict(tmp_path / 'f')) == ['k' * length]


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
        (b'\x89HDF\r\n\x1a\n', 'has an unknown format'),
        (b'\x1f\x8b\x08', 'has an unknown format'),
        (b'hello', 'has an unknown format'),
        (b'\x80\x02}q\x00.', 'not one that torch.save wrote'),
        (b'\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.', "asks for 'posix.system'"),
        (b'PK\x03\x04', 'damaged'),
        (b'\x02\0\0\0\0\0\0\0{', 'damaged safetensors'),
        (b'\x02\0\0\0\0\0\0\0{]', 'damaged safetensors'),
        (b'\x02\0\0\0\0\0\0\0{}', 'holds no tensors'),
    ],
)
def test_files_that_hold_no_weights(tmp_path, content, reason):
    (tmp_path / 'f').write_bytes(content)
    assert reason in refusal(tmp_path / 'f')


def test_files_that_cannot_be_read(tmp_path):
    for path, reason in ((tmp_path / 'absent', 'No such file'), (tmp_path, 'directory')):
        assert reason in refusal(path)


@pytest.mark.filterwarnings('ignore:invalid escape:DeprecationWarning')
@WRITERS
def test_damaged_files(tmp_path, write):
    write(tmp_path / 'f', STATE)
    content = (tmp_path / 'f').read_bytes()
    for size in range(0, len(content), 7):
        (tmp_path / 'f').write_bytes(content[:size])
        refusal(tmp_path / 'f')
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (tmp_path / 'f').write_bytes(damaged)
        try:
            files.read_state_dict(tmp_path / 'f')
        except errors.InputError:
            refused += 1
    assert refused > 15


@pytest.mark.parametrize('wrap', ['plain', 'parallel', 'averaged', 'compiled'])
def test_the_state_of_wrapped_networks_of_torch(tmp_path, wrap):
    torch = pytest.importorskip('torch')
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    wrapped = {
        'plain': lambda: network,
        'parallel': lambda: torch.nn.DataParallel(network),
        'averaged': lambda: torch.optim.swa_utils.AveragedModel(torch.nn.DataParallel(network)),
        'compiled': lambda: torch.nn.ModuleDict({'_orig_mod': network}),
    }[wrap]()
    torch.save({'model': wrapped.state_dict(), 'epoch': 1}, tmp_path / 'f')
    assert_same(
        files.read_state_dict(tmp_path / 'f'), {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    )


def test_torch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip('torch')
    safetensors_torch = pytest.importorskip('safetensors.torch')
    state = STATE | {'half': np.arange(4).astype(jnp.bfloat16)}
    files.write_safetensors(tmp_path / 'f', state)
    tensors = safetensors_torch.load_file(tmp_path / 'f')
    assert tensors['half'].dtype == torch.bfloat16
    assert_same({key: tensors[key].numpy() for key in STATE}, STATE)
    assert tensors['half'].tolist() == [0, 1, 2, 3]
