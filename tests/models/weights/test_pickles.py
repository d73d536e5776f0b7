import argparse
import collections
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from torch_files import Call, Global, Instructions, Storage

from rfn_jax.core import errors
from rfn_jax.models.weights import pickles, unpickling

BOTH = pytest.mark.parametrize('write', [torch_files.write_zip, torch_files.write_stream])
RNG = np.random.default_rng(0)


def numbers(dtype, shape=(3, 4)):
    return RNG.integers(0, 2 if dtype == 'bool' else 100, shape).astype(torch_files.dtype_of(dtype))


def loaded(path):
    return pickles.to_arrays(pickles.load(path))


def assert_same(actual, expected):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


@BOTH
@pytest.mark.parametrize('dtype', torch_files.TYPES)
def test_every_type_of_storage(tmp_path, write, dtype):
    array = numbers(dtype)
    write(tmp_path / 'f', {'weight': torch_files.tensor('7', array)}, {'7': array})
    weight = loaded(tmp_path / 'f')['weight']
    assert_same(weight, array)
    assert weight.flags.c_contiguous
    assert weight.flags.writeable


@BOTH
def test_views_of_one_storage(tmp_path, write):
    array = numbers('float32', (24,))
    tree = {
        'transposed': torch_files.view('0', array, (4, 3, 2), (1, 4, 12)),
        'strided': torch_files.view('0', array, (3, 2), (6, 2), offset=5),
        'last': torch_files.view('0', array, (), (), offset=23),
        'empty': torch_files.view('0', array, (0, 5), (5, 1), offset=24),
    }
    write(tmp_path / 'f', tree, {'0': array})
    state = loaded(tmp_path / 'f')
    assert_same(state['transposed'], array.reshape(2, 3, 4).transpose(2, 1, 0))
    assert_same(state['strided'], np.stack([array[5:9:2], array[11:15:2], array[17:21:2]]))
    assert_same(state['last'], array[23].reshape(()))
    assert_same(state['empty'], np.empty((0, 5), np.float32))
    assert all(tensor.flags.c_contiguous for tensor in state.values())


@BOTH
def test_tied_weights_are_one_array(tmp_path, write):
    array = numbers('float32')
    tree = {name: torch_files.tensor('0', array) for name in 'ab'} | {'c': torch_files.view('0', array, (4, 3), (1, 4))}
    write(tmp_path / 'f', tree, {'0': array})
    state = loaded(tmp_path / 'f')
    assert state['a'] is state['b'] is not state['c']


@pytest.mark.parametrize('dtype', ['bool', 'int16', 'bfloat16', 'float64', 'complex64'])
def test_numbers_of_a_big_endian_machine(tmp_path, dtype):
    array = numbers(dtype)
    word = array.itemsize // (2 if array.dtype.kind == 'c' else 1)
    swapped = np.frombuffer(array.tobytes(), np.uint8).reshape(-1, word)[:, ::-1]
    tree = {'weight': torch_files.tensor('0', array), 'part': torch_files.view('0', array, (2, 2), (4, 1), offset=1)}
    torch_files.write_zip(tmp_path / 'f', tree, {'0': swapped}, {'byteorder': b'big'})
    assert_same(loaded(tmp_path / 'f')['weight'], array)
    assert_same(loaded(tmp_path / 'f')['part'], array[:2, 1:3])


def test_numbers_are_little_endian_without_a_byte_order(tmp_path):
    array = numbers('float32')
    torch_files.write_zip(tmp_path / 'f', {'w': torch_files.tensor('0', array)}, {'0': array}, {'byteorder': None})
    assert_same(loaded(tmp_path / 'f')['w'], array)


def test_a_byte_that_is_no_boolean_is_true(tmp_path):
    tree = {'mask': torch_files.tensor('0', np.zeros(3, np.bool_))}
    torch_files.write_zip(tmp_path / 'f', tree, {'0': np.array([0, 1, 7], np.uint8)})
    assert_same(loaded(tmp_path / 'f')['mask'], np.array([False, True, True]))


@BOTH
def test_types_that_only_untyped_storages_hold(tmp_path, write):
    array = np.arange(6, dtype=np.uint16)
    rebuilt = Call(
        Global('torch._utils', '_rebuild_tensor_v3'),
        (
            Storage('UntypedStorage', '0', 12),
            1,
            (5,),
            (1,),
            False,
            Call(torch_files.ORDERED_DICT),
            Global('torch', 'uint16'),
        ),
    )
    write(tmp_path / 'f', {'w': rebuilt}, {'0': np.frombuffer(array.tobytes(), np.uint8)})
    assert_same(loaded(tmp_path / 'f')['w'], array[1:])


@BOTH
def test_parameters_and_tensors_with_attributes(tmp_path, write):
    array = numbers('float32')
    plain = torch_files.tensor('0', array)
    hooks = Call(torch_files.ORDERED_DICT)
    tree = {
        'parameter': Call(Global('torch._utils', '_rebuild_parameter'), (plain, True, hooks)),
        'with_state': Call(Global('torch._utils', '_rebuild_parameter_with_state'), (plain, True, hooks, {'a': 1})),
        'attributes': Call(
            Global('torch._tensor', '_rebuild_from_type_v2'),
            (plain.function, Global('torch', 'Tensor'), plain.arguments, {'a': 1}),
        ),
    }
    write(tmp_path / 'f', tree, {'0': array})
    state = loaded(tmp_path / 'f')
    assert state.keys() == tree.keys()
    for weight in state.values():
        assert_same(weight, array)


def test_a_file_of_python_2(tmp_path):
    array = numbers('float32')

    def byte_string(text):
        return Instructions(b'U' + bytes([len(text)]) + text.encode())

    storage = Instructions(
        torch_files.code(tuple(byte_string(text) for text in ('storage',)))[:-1]
        + torch_files.code(Global('torch', 'FloatStorage'))
        + b''.join(byte_string(text).code for text in ('94', 'cuda:0'))
        + torch_files.code(12)
        + b'NtQ'
    )
    weight = Call(Global('torch._utils', '_rebuild_tensor'), (storage, 0, (3, 4), (4, 1)))
    parameter = Instructions(
        torch_files.code(Global('torch.nn.parameter', 'Parameter'))
        + torch_files.code((weight,))
        + b'\x81'
        + torch_files.code((True, False, Call(torch_files.ORDERED_DICT)))
        + b'b'
    )
    pairs = [[byte_string('fc.weight'), parameter], [byte_string('id'), Instructions(b'I140735340871632\n')]]
    torch_files.write_stream(tmp_path / 'f', Call(torch_files.ORDERED_DICT, (pairs,)), {'94': array})
    tree = pickles.load(tmp_path / 'f')
    assert tree['id'] == 140735340871632
    assert_same(tree['fc.weight'].array(), array)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_what_else_a_checkpoint_holds(tmp_path, protocol):
    plain = {
        'a': [1, -2.5, None, True, 'x', (1, 2, 3, 4), 2**70, -(2**40), [[]], ()],
        'b': {'c': collections.OrderedDict(d=1)},
    }
    others = {
        'args': argparse.Namespace(lr=0.1, arch='resnet18'),
        'milestones': collections.Counter([30, 60, 60]),
        'best': np.float64(3),
        'bytes': b'abc',
        'set': {1, 2},
        'frozen': frozenset({1}) if protocol > 3 else {1},
    }
    content = pickle.dumps(plain | others | {4: 'no string'}, protocol)
    torch_files.write_zip(tmp_path / 'f', None, {}, {'data.pkl': content})
    tree = pickles.load(tmp_path / 'f')
    assert {key: tree[key] for key in plain} == plain
    assert set(tree) == set(plain) | set(others)
    assert tree.pop('bytes') == b'abc' or protocol == 2
    assert all(isinstance(tree[key], unpickling.Inert) for key in set(tree) & set(others))


def test_attributes_of_what_is_loaded_are_dropped(tmp_path):
    tree = Call(torch_files.ORDERED_DICT, state={'_metadata': {'': {'version': 1}}, 'keys': 1, '__class__': 2})
    torch_files.write_zip(tmp_path / 'f', [tree, torch_files.tensor('0', np.zeros(1))], {'0': np.zeros(1)})
    assert pickles.load(tmp_path / 'f')[0] == {}
    assert type(pickles.load(tmp_path / 'f')[0]) is dict


def test_loads_share_nothing(tmp_path):
    torch_files.write_zip(tmp_path / 'f', {'a': Call(torch_files.ORDERED_DICT), 'b': [], 'c': {}}, {})
    first, second = (pickles.load(tmp_path / 'f') for _ in range(2))
    assert first == second
    assert all(first[key] is not second[key] for key in first)
    first['a']['x'] = 1
    assert pickles.load(tmp_path / 'f')['a'] == {}


# Hostile files.


def payloads(marker):
    """Instructions that create the file `marker` when Python carries them out, by what they ask for first."""
    text = torch_files.string(f'touch {marker}')
    script = torch_files.string(f'open({str(marker)!r}, "w").close()')
    system = torch_files.string('os') + b'\x85R' + torch_files.string('system') + b'\x86R'
    return {
        ('posix.system', 'REDUCE'): b'cposix\nsystem\n' + text + b'\x85R',
        ('os.system', 'REDUCE'): b'cos\nsystem\n(' + text + b'tR',
        ('posix.system', 'nested'): b'](K\x01}X\x01\x00\x00\x00acposix\nsystem\n' + text + b'\x85Rse',
        ('posix.system', 'INST'): b'(' + text + b'iposix\nsystem\n',
        ('posix.system', 'OBJ'): b'(cposix\nsystem\n' + text + b'o',
        ('posix.system', 'STACK_GLOBAL'): b'\x8c\x05posix\x8c\x06system\x93' + text + b'\x85R',
        ('posix.system', 'memo'): b'\x8c\x05posix\x94\x8c\x06system\x9400h\x00h\x01\x93' + text + b'\x85R',
        ('shutil.os.system', 'dotted'): b'\x8c\x06shutil\x8c\x09os.system\x93' + text + b'\x85R',
        ('builtins.eval', 'REDUCE'): b'cbuiltins\neval\n' + script + b'\x85R',
        ('builtins.exec', 'REDUCE'): b'cbuiltins\nexec\n' + script + b'\x85R',
        ('builtins.getattr', 'REDUCE'): b'cbuiltins\ngetattr\ncbuiltins\n__import__\n' + system + text + b'\x85R',
    }


NAMES = list(payloads(''))


@pytest.mark.parametrize('name', NAMES, ids='-'.join)
def test_the_payloads_are_live(tmp_path, name):
    pickle.loads(b'\x80\x04' + payloads(tmp_path / 'marker')[name] + b'.')
    assert (tmp_path / 'marker').exists()


def refusal(path):
    with pytest.raises(errors.InputError) as raised:
        pickles.load(path)
    message = str(raised.value)
    assert str(path) in message
    assert '\n' not in message
    assert len(message) < 400 + len(str(path))
    return message.replace(str(path), 'PATH')


@BOTH
@pytest.mark.parametrize('name', NAMES, ids='-'.join)
def test_nothing_is_run(tmp_path, write, name):
    array = numbers('float32')
    state = {'weight': torch_files.tensor('0', array)}
    payload = Instructions(payloads(tmp_path / 'marker')[name])
    trees = [
        payload,
        {'state_dict': state, 'optimizer': {'state': [{'momentum': payload}]}},
        {'state_dict': state, 'args': Call(Global('argparse', 'Namespace'), (payload,))},
        {'state_dict': state, 3: payload},
    ]
    for tree in trees:
        write(tmp_path / 'f', tree, {'0': array})
        assert f'{name[0]!r}' in refusal(tmp_path / 'f')
        assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize('name', NAMES, ids='-'.join)
def test_nothing_is_run_around_the_object(tmp_path, name):
    array = numbers('float32')
    payload = Instructions(payloads(tmp_path / 'marker')[name])
    for place in ('magic', 'protocol', 'sys_info', 'keys'):
        torch_files.write_stream(
            tmp_path / 'f', {'w': torch_files.tensor('0', array)}, {'0': array}, **{place: payload}
        )
        assert f'{name[0]!r}' in refusal(tmp_path / 'f')
        assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize(
    ('module', 'name'),
    [
        ('torch._utils', '_rebuild_tensor_v2.__globals__'),
        ('torch._utils', '_rebuild_sparse_tensor'),
        ('torch', 'load'),
        ('subprocess', 'Popen'),
        ('__builtin__', 'eval'),
        ('copyreg', '_reconstructor'),
        ('torch.hub', 'load'),
        ('collections', 'OrderedDict.update'),
        ('collections', 'namedtuple'),
        ('rfn_jax.models.weights.pickles', 'load'),
        ('rfn_jax.models.weights.unpickling', 'GLOBALS'),
        ('torchvision.models.resnet', 'ResNet'),
        ('', ''),
        ('a\x1b[31m', 'b' * 1000),
    ],
)
def test_a_global_is_refused_before_it_is_called(tmp_path, module, name):
    stack = Instructions(torch_files.string(module) + torch_files.string(name) + b'\x93')
    for value in (Global(module, name), stack):
        torch_files.write_zip(tmp_path / 'f', [value], {})
        message = refusal(tmp_path / 'f')
        assert f'asks for {f"{module}.{name}"!r:.100}' in message
        assert 'save only the state dict' in message


@pytest.mark.parametrize(
    'instructions',
    [
        b'\x82\x01',  # EXT1
        b'\x83\x01\x00',  # EXT2
        b'\x84\x01\x00\x00\x00',  # EXT4
        b'P0\n',  # a persistent id of protocol 0
        b'ccollections\nOrderedDict\n)}\x92',  # NEWOBJ_EX
        b'ccollections\nOrderedDict\n}X\x01\x00\x00\x00xK\x01sb',  # attributes of a class
        b'ccollections\nOrderedDict\nX\x01\x00\x00\x00xK\x01s',  # items of a class
        b'ccollections\nOrderedDict\nK\x01a',  # appending to a class
        b'}K\x01a',
        b']X\x01\x00\x00\x00xK\x01s',
        b'K\x01}b',
        b'](K\x01\x90',  # adding to a set that is a list
        b'X\x05\x00\x00\x00posixK\x01\x93',
        b'X\x05\x00\x00\x00posix)R',
        b'ctorch\nFloatStorage\n)R',
        b'ctorch\nfloat32\n)R',
        b'ccollections\nOrderedDict\n]R',
        b'ccollections\nOrderedDict\n}\x85R',
        b'ccollections\nOrderedDict\n(K\x01K\x02tR',
        b'ctorch._utils\n_rebuild_parameter\n(K\x01\x89}tR',
        b'ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)NtR',
        b'ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nSize\nN)NtR',
        b'K\x01Q',
        b')Q',
        b'X\x01\x00\x00\x00aQ',
        b'h\x07',
        b'0',
        b't',
        b'(1R',
        b'(X\x01\x00\x00\x00au',
        b'}(X\x01\x00\x00\x00au',
        b'\x97',  # NEXT_BUFFER
        b'U\x01a\x98',  # READONLY_BUFFER
        b'I' + b'9' * 5000 + b'\n',
        b'\x8e' + struct.pack('<Q', 2**62) + b'a',
        b'\x96' + struct.pack('<Q', 2**40) + b'a',
        b'X\x01\x00\x00\x00\xff',
        b'\xff',
    ],
)
def test_instructions_that_no_state_dict_needs(tmp_path, instructions):
    before = dict(vars(collections.OrderedDict)), dict(unpickling.FUNCTIONS)
    torch_files.write_zip(tmp_path / 'f', Instructions(instructions), {})
    refusal(tmp_path / 'f')
    assert (dict(vars(collections.OrderedDict)), dict(unpickling.FUNCTIONS)) == before


EXCEEDS = 'exceeds its storage of 12 numbers'
IMPOSSIBLE = 'an impossible offset, shape or stride'
SHAPE = 'a tensor with the impossible shape'
UNFIT = 'shape and strides do not match'
SIZE = 'a storage with an impossible size'
SHORT = "its storage '0' is truncated"
NO_FILE = 'PATH is damaged or is not a PyTorch file: '


@BOTH
@pytest.mark.parametrize(
    ('shape', 'strides', 'offset', 'numel', 'reason'),
    [
        ((13,), (1,), 0, None, EXCEEDS),
        ((12,), (1,), 1, None, EXCEEDS),
        ((3, 4), (4, 2), 0, None, EXCEEDS),
        ((13,), (0,), 0, None, EXCEEDS),
        ((12, 12), (0, 1), 0, None, EXCEEDS),
        ((2**40,), (0,), 0, None, EXCEEDS),
        ((2**80,), (0,), 0, None, IMPOSSIBLE),
        ((2**40, 2**40), (0, 0), 0, None, SHAPE),
        ((2**40, 0, 2**40), (1, 1, 1), 0, None, SHAPE),
        ((12,), (-1,), 11, None, IMPOSSIBLE),
        ((-12,), (1,), 0, None, IMPOSSIBLE),
        ((-3, -4), (4, 1), 0, None, IMPOSSIBLE),
        ((12,), (1,), -1, None, IMPOSSIBLE),
        ((), (), 12, None, EXCEEDS),
        ((12,), (), 0, None, UNFIT),
        ((1,) * 33, (1,) * 33, 0, None, UNFIT),
        ((2.0,), (1,), 0, None, IMPOSSIBLE),
        ((True,), (1,), 0, None, IMPOSSIBLE),
        (('2',), (1,), 0, None, IMPOSSIBLE),
        ([12], [1], 0, None, UNFIT),
        (12, 1, 0, None, UNFIT),
        ((12,), (1,), None, None, IMPOSSIBLE),
        ((12,), (1,), 0, -1, SIZE),
        ((12,), (1,), 0, 2**60, SIZE),
        ((12,), (1,), 0, 13, SHORT),
        ((13,), (1,), 0, 13, SHORT),
        ((12,), (1,), 0, 'a', 'something that is not a storage'),
    ],
)
def test_tensors_lie_inside_their_storage(tmp_path, write, shape, strides, offset, numel, reason):
    array = numbers('float32', (12,))
    write(tmp_path / 'f', {'w': torch_files.view('0', array, shape, strides, offset, numel)}, {'0': array})
    assert reason in refusal(tmp_path / 'f')


@BOTH
def test_a_storage_is_of_one_type_and_no_view(tmp_path, write):
    array = numbers('float32', (12,))
    whole = torch_files.tensor('0', array)
    for other in (torch_files.tensor('0', array.astype(np.int32)), torch_files.view('0', array, (1,), (1,), numel=11)):
        write(tmp_path / 'f', [whole, other], {'0': array})
        assert 'two types or sizes' in refusal(tmp_path / 'f')
    if write is torch_files.write_stream:
        write(tmp_path / 'f', [Storage('FloatStorage', '0', 12, ('1', 0, 6))], {'0': array})
        assert 'view of another' in refusal(tmp_path / 'f')


@BOTH
def test_arguments_of_tensors_are_checked(tmp_path, write):
    array = numbers('float32', (12,))
    function, (storage, *rest) = torch_files.tensor('0', array).function, torch_files.tensor('0', array).arguments
    v3 = Global('torch._utils', '_rebuild_tensor_v3')
    float32, float64 = Global('torch', 'float32'), Global('torch', 'float64')
    wrong = [
        (Call(function, ('0', *rest)), 'a tensor without a storage'),
        (Call(function, (storage, *rest[:2])), f'{NO_FILE}TypeError'),
        (Call(function, (storage, *rest, {'conj': True})), 'pending conjugation or negation'),
        (Call(Global('torch._utils', '_rebuild_tensor'), (storage, *rest[:3], float64)), f'{NO_FILE}TypeError'),
        (Call(v3, (storage, *rest, 'float32')), 'a tensor without a type'),
        (Call(v3, (storage, *rest, Global('torch', 'Tensor'))), "KeyError('torch.Tensor')"),
        (Call(v3, (storage, *rest, float64)), 'exceeds its storage of 6 numbers'),
        (Call(v3, (storage, *rest, float32, {'neg': True})), 'pending conjugation or negation'),
    ]
    for value, reason in wrong:
        write(tmp_path / 'f', [value], {'0': array})
        assert reason in refusal(tmp_path / 'f')


def test_views_do_not_multiply_a_file(tmp_path):
    array = numbers('float32', (256,))
    tree = [torch_files.view('0', array, (256 - n,), (1,)) for n in range(9)]
    torch_files.write_zip(tmp_path / 'f', tree[:8], {'0': array})
    assert len(pickles.load(tmp_path / 'f')) == 8
    torch_files.write_zip(tmp_path / 'f', tree, {'0': array})
    assert 'views of only 1024 bytes' in refusal(tmp_path / 'f')


def test_small_files_take_little_time_and_memory(tmp_path):
    deep = b')' + b'\x85' * 150_000  # hashing what is so deep would end the process
    pairs = b'](' + (b'X\x01\x00\x00\x00aK\x01\x86' * 5_000) + b'eq\x00'
    codes = {
        'deep': b'}' + deep + b'K\x01s',
        'memo': b'Nr\xff\xff\xff\xff',
        'pairs': pairs + b'0(ccollections\nOrderedDict\nq\x010' + b'h\x01h\x00\x85R' * 2 + b't',
    }
    values = {}
    for name, instructions in codes.items():
        torch_files.write_zip(tmp_path / 'f', Instructions(instructions), {})
        values[name] = pickles.load(tmp_path / 'f')
    assert values['deep'] == {}
    assert values['memo'] is None
    assert values['pairs'] == ({'a': 1}, {})  # the second time there is nothing to copy
    torch_files.write_stream(tmp_path / 'f', {}, {}, keys=[Instructions(deep[:20_000])] * 2)
    refusal(tmp_path / 'f')


# Damaged files.


def a_zip(path, **options):
    array = np.arange(12, dtype=np.float32)
    torch_files.write_zip(path, {'w': torch_files.tensor('0', array)}, {'0': array}, **options)


@pytest.mark.parametrize(
    ('members', 'reason'),
    [
        ({'data/0': None}, "its member 'data/0' is missing"),
        ({'data/0': bytes(47)}, 'truncated'),
        ({'data.pkl': None}, '0 members'),
        ({'byteorder': b'middle'}, 'byte order'),
        ({'constants.pkl': b'', 'code/model.py': b''}, 'TorchScript'),
        ({'data.pkl': b''}, 'exhausted'),
        ({'data.pkl': b'\x80\x02'}, 'exhausted'),
    ],
)
def test_incomplete_archives(tmp_path, members, reason):
    a_zip(tmp_path / 'f', members=members)
    assert reason in refusal(tmp_path / 'f')


def test_a_longer_member_than_its_storage(tmp_path):
    a_zip(tmp_path / 'f', members={'data/0': np.arange(20, dtype=np.float32).tobytes()})
    assert_same(loaded(tmp_path / 'f')['w'], np.arange(12, dtype=np.float32))


def test_archives_with_two_objects(tmp_path):
    a_zip(tmp_path / 'f')
    with zipfile.ZipFile(tmp_path / 'f', 'a') as archive:
        archive.writestr('other/data.pkl', torch_files.pickled({}))
    assert '2 members' in refusal(tmp_path / 'f')


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_archives_with_a_name_twice(tmp_path):
    a_zip(tmp_path / 'f')
    with zipfile.ZipFile(tmp_path / 'f', 'a') as archive:
        archive.writestr('archive/data/0', bytes(48))
    assert 'the same name' in refusal(tmp_path / 'f')


def test_compressed_archives(tmp_path):
    a_zip(tmp_path / 'f', compression=zipfile.ZIP_DEFLATED)
    assert 'compressed' in refusal(tmp_path / 'f')
    a_zip(tmp_path / 'f', members={'bomb': bytes(10_000_000)}, compression=zipfile.ZIP_DEFLATED)
    assert 'larger than the file' in refusal(tmp_path / 'f')


def test_checksums(tmp_path):
    a_zip(tmp_path / 'f')
    content = bytearray((tmp_path / 'f').read_bytes())
    start = content.index(np.arange(12, dtype=np.float32).tobytes())
    content[start + 20] ^= 1
    (tmp_path / 'f').write_bytes(content)
    assert "'archive/data/0' does not match its checksum" in refusal(tmp_path / 'f')
    with zipfile.ZipFile(tmp_path / 'f') as archive:
        checksum = struct.pack('<I', archive.getinfo('archive/data/0').CRC)
    (tmp_path / 'f').write_bytes(content.replace(checksum, bytes(4)))  # as if it had been written without check sums
    assert loaded(tmp_path / 'f')['w'].shape == (12,)


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ({'magic': 1}, 'not one that torch.save wrote'),
        ({'magic': {'a': 1}}, 'not one that torch.save wrote'),
        ({'protocol': 1002}, 'unknown version'),
        ({'keys': []}, 'does not list'),
        ({'keys': ['0', '0']}, 'does not list'),
        ({'keys': ['0', '1']}, 'does not list'),
        ({'keys': [0]}, 'does not list'),
        ({'keys': '0'}, 'does not list'),
    ],
)
def test_incomplete_streams(tmp_path, options, reason):
    array = numbers('float32')
    torch_files.write_stream(tmp_path / 'f', {'w': torch_files.tensor('0', array)}, {'0': array}, **options)
    assert reason in refusal(tmp_path / 'f')


def an_example(path, write):
    first, second = numbers('float32', (2, 3)), np.zeros(0, np.float32)
    tree = {
        'state_dict': Call(torch_files.ORDERED_DICT, state={'_metadata': {}}),
        'model': {'w': torch_files.tensor('0', first), 'e': torch_files.tensor('1', second)},
        'args': Call(Global('argparse', 'Namespace'), (), {'lr': 0.1}),
        'epoch': 3,
    }
    write(path, tree, {'0': first, '1': second})
    return path.read_bytes()


@BOTH
def test_a_file_that_is_cut_short_anywhere(tmp_path, write):
    content = an_example(tmp_path / 'f', write)
    for size in range(1, len(content)):
        (tmp_path / 'f').write_bytes(content[:size])
        with pytest.raises(errors.InputError, match=str(tmp_path)):
            pickles.load(tmp_path / 'f')


@BOTH
@pytest.mark.filterwarnings('ignore:invalid escape:DeprecationWarning')
def test_a_file_with_a_wrong_byte_anywhere(tmp_path, write):
    content = an_example(tmp_path / 'f', write)
    rng = np.random.default_rng(1)
    refused = 0
    for position in range(0, len(content), 2):
        damaged = bytearray(content)
        damaged[position] = rng.integers(256)
        (tmp_path / 'f').write_bytes(damaged)
        try:
            tree = pickles.load(tmp_path / 'f')
        except errors.InputError:
            refused += 1
        else:
            if isinstance(tree, dict) and isinstance(model := tree.get('model'), dict):
                pickles.to_arrays({k: v for k, v in model.items() if isinstance(v, unpickling.Tensor)})
    assert refused > len(content) // 8


@pytest.mark.parametrize('content', [b'', b'\x80', b'PK\3\4', b'{}', bytes(100)])
def test_files_of_something_else(tmp_path, content):
    (tmp_path / 'f').write_bytes(content)
    assert refusal(tmp_path / 'f').startswith(f'{NO_FILE}ValueError')


def test_files_that_cannot_be_read(tmp_path):
    assert 'No such file' in refusal(tmp_path / 'absent')
    assert 'directory' in refusal(tmp_path)


# Files of PyTorch itself.


@pytest.fixture
def torch():
    return pytest.importorskip('torch')


FORMATS = pytest.mark.parametrize('zipped', [True, False])


def of_torch(torch, tensor):
    """The elements of a tensor, by another way than its storage."""
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy().astype(jnp.bfloat16)
    return tensor.detach().numpy()


@FORMATS
@pytest.mark.parametrize('dtype', torch_files.TYPES)
def test_types_of_torch(tmp_path, torch, zipped, dtype):
    tensor = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    torch.save({'w': tensor, 's': tensor[1, 2], 'e': tensor[:0]}, tmp_path / 'f', _use_new_zipfile_serialization=zipped)
    state = loaded(tmp_path / 'f')
    for key, expected in (('w', tensor), ('s', tensor[1, 2]), ('e', tensor[:0])):
        assert_same(state[key], of_torch(torch, expected))


@FORMATS
@pytest.mark.parametrize('dtype', ['uint16', 'uint32', 'uint64', 'float8_e4m3fn', 'float8_e5m2'])
def test_new_types_of_torch(tmp_path, torch, zipped, dtype):
    tensor = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))[1:]
    torch.save([tensor], tmp_path / 'f', _use_new_zipfile_serialization=zipped)
    (weight,) = pickles.load(tmp_path / 'f')
    assert weight.dtype == getattr(jnp, dtype)
    np.testing.assert_array_equal(weight.array().astype(np.float32), tensor.float().numpy())


@FORMATS
@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_views_of_torch(tmp_path, torch, zipped, protocol):
    base = torch.arange(120.0).reshape(4, 5, 6)
    views = {
        'base': base,
        'transposed': base.permute(2, 0, 1),
        'strided': base[1:, ::2, 1::3],
        'diagonal': base.diagonal(dim1=1, dim2=2),
        'parameter': torch.nn.Parameter(base[2].T),
        'channels_last': torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    options = {'_use_new_zipfile_serialization': zipped, 'pickle_protocol': protocol}
    torch.save(views, tmp_path / 'f', **options)
    state = loaded(tmp_path / 'f')
    assert list(state) == list(views)
    for key, tensor in views.items():
        assert_same(state[key], of_torch(torch, tensor))


@FORMATS
def test_a_training_checkpoint_of_torch(tmp_path, torch, zipped):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    network[0].weight.tag = 'kept as a state'
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoint = {
        'epoch': 3,
        'state_dict': network.state_dict(),
        'parameters': dict(network.named_parameters()),
        'optimizer': optimizer.state_dict(),
        'scheduler': schedule.state_dict(),
        'args': argparse.Namespace(lr=0.1, milestones=[3, 5], device=torch.device('cpu'), dtype=torch.float16),
        'best': np.float64(0.5),
        'rng': torch.get_rng_state(),
        'shape': network[0].weight.shape,
    }
    torch.save(checkpoint, tmp_path / 'f', _use_new_zipfile_serialization=zipped)
    tree = pickles.load(tmp_path / 'f')
    assert tree['epoch'] == 3
    assert tree['shape'] == (4, 3, 3, 3)
    for entry in ('state_dict', 'parameters'):
        state = pickles.to_arrays(tree[entry])
        assert list(state) == list(checkpoint[entry])
        for key, tensor in checkpoint[entry].items():
            assert_same(state[key], of_torch(torch, tensor))


def test_checksums_that_torch_left_out(tmp_path, torch):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'w': torch.arange(5.0)}, tmp_path / 'f')
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(loaded(tmp_path / 'f')['w'], np.arange(5, dtype=np.float32))


def test_programs_of_torch_are_refused(tmp_path, torch):
    network = torch.nn.Linear(2, 2)
    torch.save(network, tmp_path / 'f')
    assert "asks for 'torch.nn.modules.linear.Linear'" in refusal(tmp_path / 'f')
    torch.save({'w': torch.zeros(2, dtype=torch.complex64).conj()}, tmp_path / 'f')
    assert 'conjugation' in refusal(tmp_path / 'f')
    torch.save({'w': torch.eye(2).to_sparse()}, tmp_path / 'f')
    assert 'asks for' in refusal(tmp_path / 'f')
    torch.save({'w': torch.zeros(1).expand(5)}, tmp_path / 'f')
    assert 'exceeds its storage' in refusal(tmp_path / 'f')


@pytest.mark.filterwarnings('ignore:.*torch.jit:DeprecationWarning')
def test_torchscript_is_refused(tmp_path, torch):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / 'f')
    assert 'TorchScript' in refusal(tmp_path / 'f')


@FORMATS
def test_a_file_of_torch_that_is_cut_short(tmp_path, torch, zipped):
    tree = {'w': torch.arange(6.0), 'n': torch.nn.Parameter(torch.ones(3)), 'args': argparse.Namespace(a=1)}
    torch.save(tree, tmp_path / 'f', _use_new_zipfile_serialization=zipped)
    content = (tmp_path / 'f').read_bytes()
    for size in range(1, len(content), 7):
        (tmp_path / 'f').write_bytes(content[:size])
        with pytest.raises(errors.InputError, match=str(tmp_path)):
            pickles.load(tmp_path / 'f')
