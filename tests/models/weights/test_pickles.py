import argparse
import collections
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from torch_files import Call, Global, Instructions, Storage, assert_same

from rfn_jax.core import errors
from rfn_jax.models.weights import pickles, unpickling

BOTH = pytest.mark.parametrize('write', [torch_files.write_zip, torch_files.write_stream])
RNG = np.random.default_rng(0)
FLOATS = np.arange(12, dtype=np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'f'


def numbers(dtype, shape=(3, 4)):
    return RNG.integers(0, 2 if dtype == 'bool' else 100, shape).astype(torch_files.dtype_of(dtype))


def loaded(path):
    return pickles.to_arrays(pickles.load(path))


@BOTH
@pytest.mark.parametrize('dtype', torch_files.TYPES)
def test_every_type_of_storage(path, write, dtype):
    array = numbers(dtype)
    write(path, {'weight': torch_files.tensor('7', array)}, {'7': array})
    weight = loaded(path)['weight']
    assert_same(weight, array)
    assert weight.flags.c_contiguous
    assert weight.flags.writeable


@BOTH
def test_views_of_one_storage(path, write):
    array = numbers('float32', (24,))
    tree = {
        'transposed': torch_files.view('0', array, (4, 3, 2), (1, 4, 12)),
        'strided': torch_files.view('0', array, (3, 2), (6, 2), offset=5),
        'last': torch_files.view('0', array, (), (), offset=23),
        'empty': torch_files.view('0', array, (0, 5), (5, 1), offset=24),
        **{name: torch_files.tensor('0', array) for name in ('one', 'tied')},
    }
    write(path, tree, {'0': array})
    state = loaded(path)
    assert_same(state['transposed'], array.reshape(2, 3, 4).transpose(2, 1, 0))
    assert_same(state['strided'], np.stack([array[5:9:2], array[11:15:2], array[17:21:2]]))
    assert_same(state['last'], array[23].reshape(()))
    assert_same(state['empty'], np.empty((0, 5), np.float32))
    assert state['one'] is state['tied'] is not state['transposed']
    assert all(tensor.flags.c_contiguous for tensor in state.values())


@pytest.mark.parametrize('dtype', ['bool', 'int16', 'bfloat16', 'float64', 'complex64'])
def test_numbers_of_a_big_endian_machine(path, dtype):
    array = numbers(dtype)
    word = array.itemsize // (2 if array.dtype.kind == 'c' else 1)
    swapped = np.frombuffer(array.tobytes(), np.uint8).reshape(-1, word)[:, ::-1]
    tree = {'weight': torch_files.tensor('0', array), 'part': torch_files.view('0', array, (2, 2), (4, 1), offset=1)}
    torch_files.write_zip(path, tree, {'0': swapped}, {'byteorder': b'big'})
    assert_same(loaded(path)['weight'], array)
    assert_same(loaded(path)['part'], array[:2, 1:3])


@pytest.mark.parametrize(
    ('array', 'members', 'expected'),
    [
        (FLOATS, {'byteorder': None}, FLOATS),  # little-endian
        (FLOATS, {'data/0': np.arange(20, dtype=np.float32).tobytes()}, FLOATS),  # longer than the storage
        (np.zeros(3, np.bool_), {'data/0': bytes([0, 1, 7])}, np.array([False, True, True])),
    ],
)
def test_members_without_a_byte_order_and_too_long_ones_and_bytes_that_are_no_booleans(path, array, members, expected):
    torch_files.write_zip(path, {'w': torch_files.tensor('0', array)}, {'0': array}, members)
    assert_same(loaded(path)['w'], expected)


@BOTH
def test_parameters_and_tensors_with_attributes(path, write):
    array = numbers('float32')
    plain = torch_files.tensor('0', array)
    hooks = Call(torch_files.ORDERED_DICT)
    words = np.arange(6, dtype=np.uint16)  # which only an untyped storage can hold
    untyped = (Storage('UntypedStorage', '1', 12), 1, (5,), (1,), False, hooks, Global('torch', 'uint16'))
    tree = {
        'parameter': Call(Global('torch._utils', '_rebuild_parameter'), (plain, True, hooks)),
        'with_state': Call(Global('torch._utils', '_rebuild_parameter_with_state'), (plain, True, hooks, {'a': 1})),
        'attributes': Call(
            Global('torch._tensor', '_rebuild_from_type_v2'),
            (plain.function, Global('torch', 'Tensor'), plain.arguments, {'a': 1}),
        ),
        'untyped': Call(Global('torch._utils', '_rebuild_tensor_v3'), untyped),
    }
    write(path, tree, {'0': array, '1': np.frombuffer(words.tobytes(), np.uint8)})
    state = loaded(path)
    assert state.keys() == tree.keys()
    assert_same(state.pop('untyped'), words[1:])
    for weight in state.values():
        assert_same(weight, array)


def test_a_file_of_python_2(path):
    array = numbers('float32')

    def byte_string(text):
        return Instructions(b'U' + bytes([len(text)]) + text.encode())

    def codes(*values):
        return b''.join(torch_files.code(value) for value in values)

    identifier = codes(Global('torch', 'FloatStorage'), byte_string('94'), byte_string('cuda:0'), 12)
    storage = Instructions(codes((byte_string('storage'),))[:-1] + identifier + b'NtQ')
    weight = Call(Global('torch._utils', '_rebuild_tensor'), (storage, 0, (3, 4), (4, 1)))
    made = codes(Global('torch.nn.parameter', 'Parameter'), (weight,)) + b'\x81'
    parameter = Instructions(made + codes((True, False, Call(torch_files.ORDERED_DICT))) + b'b')
    pairs = [[byte_string('fc.weight'), parameter], [byte_string('id'), Instructions(b'I140735340871632\n')]]
    torch_files.write_stream(path, Call(torch_files.ORDERED_DICT, (pairs,)), {'94': array})
    tree = pickles.load(path)
    assert tree['id'] == 140735340871632
    assert_same(tree['fc.weight'].array(), array)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_what_else_a_checkpoint_holds(path, protocol):
    numbers = [1, -2.5, None, True, 'x', (1, 2, 3, 4), 2**70, -(2**40), [[]], ()]
    plain = {'a': numbers, 'b': {'c': collections.OrderedDict(d=1)}}
    others = {
        'args': argparse.Namespace(lr=0.1, arch='resnet18'),
        'milestones': collections.Counter([30, 60, 60]),
        'best': np.float64(3),
        'bytes': b'abc',
        'set': {1, 2},
        'frozen': frozenset({1}) if protocol > 3 else {1},
    }
    content = pickle.dumps(plain | others | {4: 'no string'}, protocol)
    torch_files.write_zip(path, None, {}, {'data.pkl': content})
    tree = pickles.load(path)
    assert {key: tree[key] for key in plain} == plain
    assert set(tree) == set(plain) | set(others)
    assert tree.pop('bytes') == b'abc' or protocol == 2
    assert all(isinstance(tree[key], unpickling.Inert) for key in set(tree) & set(others))


def test_loads_share_nothing_and_drop_attributes(path):
    attributes = {'_metadata': {'': {'version': 1}}, 'keys': 1, '__class__': 2}
    torch_files.write_zip(path, {'a': Call(torch_files.ORDERED_DICT, state=attributes), 'b': [], 'c': {}}, {})
    first, second = (pickles.load(path) for _ in range(2))
    assert first == second == {'a': {}, 'b': [], 'c': {}}
    assert all(first[key] is not second[key] for key in first)
    assert type(first['a']) is dict
    first['a']['x'] = 1
    assert pickles.load(path)['a'] == {}


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
def test_the_payloads_are_live(path, name):
    pickle.loads(b'\x80\x04' + payloads(path.with_name('marker'))[name] + b'.')
    assert path.with_name('marker').exists()


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
def test_nothing_is_run(path, write, name):
    array = numbers('float32')
    state = {'weight': torch_files.tensor('0', array)}
    payload = Instructions(payloads(path.with_name('marker'))[name])
    trees = [
        payload,
        {'state_dict': state, 'optimizer': {'state': [{'momentum': payload}]}},
        {'state_dict': state, 'args': Call(Global('argparse', 'Namespace'), (payload,))},
        {'state_dict': state, 3: payload},
    ]
    cases = [(tree, {}) for tree in trees]
    if write is torch_files.write_stream:  # around the object, too
        cases += [(state, {place: payload}) for place in ('magic', 'protocol', 'sys_info', 'keys')]
    for tree, options in cases:
        write(path, tree, {'0': array}, **options)
        assert f'{name[0]!r}' in refusal(path)
        assert not path.with_name('marker').exists()


@pytest.mark.parametrize(
    ('module', 'name'),
    [
        *(('torch._utils', '_rebuild_tensor_v2.__globals__'), ('torch._utils', '_rebuild_sparse_tensor')),
        *(('torch', 'load'), ('torch.hub', 'load'), ('torchvision.models.resnet', 'ResNet')),
        *(('subprocess', 'Popen'), ('__builtin__', 'eval'), ('copyreg', '_reconstructor')),
        *(('collections', 'OrderedDict.update'), ('collections', 'namedtuple'), ('', '')),
        *(('rfn_jax.models.weights.pickles', 'load'), ('rfn_jax.models.weights.unpickling', 'GLOBALS')),
        ('a\x1b[31m', 'b' * 1000),
    ],
)
def test_a_global_is_refused_before_it_is_called(path, module, name):
    stack = Instructions(torch_files.string(module) + torch_files.string(name) + b'\x93')
    for value in (Global(module, name), stack):
        torch_files.write_zip(path, [value], {})
        message = refusal(path)
        assert f'asks for {f"{module}.{name}"!r:.100}' in message
        assert 'save only the state dict' in message


DICT = b'ccollections\nOrderedDict\n'
TYPED = b'ctorch._tensor\n_rebuild_from_type_v2\n'


@pytest.mark.parametrize(
    'instructions',
    [
        *(b'\x82\x01', b'\x83\x01\x00', b'\x84\x01\x00\x00\x00'),  # EXT1, EXT2, EXT4
        *(b'P0\n', DICT + b')}\x92'),  # a persistent id of protocol 0; NEWOBJ_EX
        DICT + b'}X\x01\x00\x00\x00xK\x01sb',  # attributes of a class
        *(DICT + b'X\x01\x00\x00\x00xK\x01s', DICT + b'K\x01a'),  # items of a class, and appending to one
        *(b'}K\x01a', b']X\x01\x00\x00\x00xK\x01s', b'K\x01}b'),
        b'](K\x01\x90',  # adding to a set that is a list
        *(b'X\x05\x00\x00\x00posixK\x01\x93', b'X\x05\x00\x00\x00posix)R'),
        *(b'ctorch\nFloatStorage\n)R', b'ctorch\nfloat32\n)R'),
        *(DICT + b']R', DICT + b'}\x85R', DICT + b'(K\x01K\x02tR'),
        b'ctorch._utils\n_rebuild_parameter\n(K\x01\x89}tR',
        *(TYPED + b'(' + TYPED + b'N)NtR', TYPED + b'(ctorch\nSize\nN)NtR'),
        *(b'K\x01Q', b')Q', b'X\x01\x00\x00\x00aQ'),
        *(b'h\x07', b'0', b't', b'(1R', b'(X\x01\x00\x00\x00au', b'}(X\x01\x00\x00\x00au'),
        *(b'\x97', b'U\x01a\x98'),  # NEXT_BUFFER, READONLY_BUFFER
        b'I' + b'9' * 5000 + b'\n',
        *(b'\x8e' + struct.pack('<Q', 2**62) + b'a', b'\x96' + struct.pack('<Q', 2**40) + b'a'),
        *(b'X\x01\x00\x00\x00\xff', b'\xff'),
    ],
)
def test_instructions_that_no_state_dict_needs(path, instructions):
    before = dict(vars(collections.OrderedDict)), dict(unpickling.FUNCTIONS)
    torch_files.write_zip(path, Instructions(instructions), {})
    refusal(path)
    assert (dict(vars(collections.OrderedDict)), dict(unpickling.FUNCTIONS)) == before


NO_FILE = 'PATH is damaged or is not a PyTorch file: '
# Tensors by what is wrong with them: shape, strides, and perhaps the offset and the number of elements.
IMPOSSIBLE = {
    'exceeds its storage of 12 numbers': [
        *(
            ((13,), (1,)),
            ((12,), (1,), 1),
            ((3, 4), (4, 2)),
            ((13,), (0,)),
            ((12, 12), (0, 1)),
            ((2**40,), (0,)),
            ((), (), 12),
        ),
    ],
    'an impossible offset, shape or stride': [
        *(((2**80,), (0,)), ((12,), (-1,), 11), ((-12,), (1,)), ((-3, -4), (4, 1)), ((12,), (1,), -1)),
        *(((2.0,), (1,)), ((True,), (1,)), (('2',), (1,)), ((12,), (1,), None)),
    ],
    'a tensor with the impossible shape': [((2**40, 2**40), (0, 0)), ((2**40, 0, 2**40), (1, 1, 1))],
    'shape and strides do not match': [((12,), ()), ((1,) * 33, (1,) * 33), ([12], [1]), (12, 1)],
    'a storage with an impossible size': [((12,), (1,), 0, -1), ((12,), (1,), 0, 2**60)],
    "its storage '0' is truncated": [((12,), (1,), 0, 13), ((13,), (1,), 0, 13)],
    'something that is not a storage': [((12,), (1,), 0, 'a')],
}


@BOTH
@pytest.mark.parametrize(('reason', 'view'), [(reason, view) for reason, views in IMPOSSIBLE.items() for view in views])
def test_tensors_lie_inside_their_storage(path, write, reason, view):
    write(path, {'w': torch_files.view('0', FLOATS, *view)}, {'0': FLOATS})
    assert reason in refusal(path)


@BOTH
def test_a_storage_is_of_one_type_and_no_view(path, write):
    whole = torch_files.tensor('0', FLOATS)
    for other in (
        torch_files.tensor('0', FLOATS.astype(np.int32)),
        torch_files.view('0', FLOATS, (1,), (1,), numel=11),
    ):
        write(path, [whole, other], {'0': FLOATS})
        assert 'two types or sizes' in refusal(path)
    if write is torch_files.write_stream:
        write(path, [Storage('FloatStorage', '0', 12, ('1', 0, 6))], {'0': FLOATS})
        assert 'view of another' in refusal(path)


@BOTH
def test_arguments_of_tensors_are_checked(path, write):
    function, (storage, *rest) = torch_files.tensor('0', FLOATS).function, torch_files.tensor('0', FLOATS).arguments
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
        write(path, [value], {'0': FLOATS})
        assert reason in refusal(path)


def test_views_do_not_multiply_a_file(path):
    array = numbers('float32', (256,))
    tree = [torch_files.view('0', array, (256 - n,), (1,)) for n in range(9)]
    torch_files.write_zip(path, tree[:8], {'0': array})
    assert len(pickles.load(path)) == 8
    torch_files.write_zip(path, tree, {'0': array})
    assert 'views of only 1024 bytes' in refusal(path)


def test_small_files_take_little_time_and_memory(path):
    deep = b')' + b'\x85' * 150_000  # hashing what is so deep would end the process
    pairs = b'](' + (b'X\x01\x00\x00\x00aK\x01\x86' * 5_000) + b'eq\x00'
    codes = {
        'deep': b'}' + deep + b'K\x01s',
        'memo': b'Nr\xff\xff\xff\xff',
        'pairs': pairs + b'0(ccollections\nOrderedDict\nq\x010' + b'h\x01h\x00\x85R' * 2 + b't',
    }
    values = {'deep': {}, 'memo': None, 'pairs': ({'a': 1}, {})}  # the second time there is nothing to copy
    for name, instructions in codes.items():
        torch_files.write_zip(path, Instructions(instructions), {})
        assert pickles.load(path) == values[name]
    torch_files.write_stream(path, {}, {}, keys=[Instructions(deep[:20_000])] * 2)
    refusal(path)


# Damaged files.


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize(
    ('options', 'appended', 'reason'),
    [
        ({'members': {'data/0': None}}, {}, "its member 'data/0' is missing"),
        ({'members': {'data/0': bytes(47)}}, {}, 'truncated'),
        ({'members': {'data.pkl': None}}, {}, '0 members'),
        ({'members': {'byteorder': b'middle'}}, {}, 'byte order'),
        ({'members': {'constants.pkl': b'', 'code/model.py': b''}}, {}, 'TorchScript'),
        ({'members': {'data.pkl': b''}}, {}, 'exhausted'),
        ({'members': {'data.pkl': b'\x80\x02'}}, {}, 'exhausted'),
        ({'compression': zipfile.ZIP_DEFLATED}, {}, 'compressed'),
        ({'members': {'bomb': bytes(10_000_000)}, 'compression': zipfile.ZIP_DEFLATED}, {}, 'larger than the file'),
        ({}, {'other/data.pkl': torch_files.pickled({})}, '2 members'),
        ({}, {'archive/data/0': bytes(48)}, 'the same name'),
    ],
)
def test_archives_that_are_refused(path, options, appended, reason):
    torch_files.write_zip(path, {'w': torch_files.tensor('0', FLOATS)}, {'0': FLOATS}, **options)
    with zipfile.ZipFile(path, 'a') as archive:
        for name, content in appended.items():
            archive.writestr(name, content)
    assert reason in refusal(path)


def test_checksums(path):
    torch_files.write_zip(path, {'w': torch_files.tensor('0', FLOATS)}, {'0': FLOATS})
    content = bytearray(path.read_bytes())
    content[content.index(FLOATS.tobytes()) + 20] ^= 1
    path.write_bytes(content)
    assert "'archive/data/0' does not match its checksum" in refusal(path)
    with zipfile.ZipFile(path) as archive:
        checksum = struct.pack('<I', archive.getinfo('archive/data/0').CRC)
    path.write_bytes(content.replace(checksum, bytes(4)))  # as if it had been written without check sums
    assert loaded(path)['w'].shape == (12,)


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        *(({'magic': magic}, 'not one that torch.save wrote') for magic in (1, {'a': 1})),
        ({'protocol': 1002}, 'unknown version'),
        *(({'keys': keys}, 'does not list') for keys in ([], ['0', '0'], ['0', '1'], [0], '0')),
    ],
)
def test_incomplete_streams(path, options, reason):
    torch_files.write_stream(path, {'w': torch_files.tensor('0', FLOATS)}, {'0': FLOATS}, **options)
    assert reason in refusal(path)


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


def assert_cuts_are_refused(path, step):
    content = path.read_bytes()
    for size in range(1, len(content), step):
        path.write_bytes(content[:size])
        with pytest.raises(errors.InputError, match=str(path)):
            pickles.load(path)


@BOTH
def test_a_file_that_is_cut_short_anywhere(path, write):
    an_example(path, write)
    assert_cuts_are_refused(path, 1)


@BOTH
@pytest.mark.filterwarnings('ignore:invalid escape:DeprecationWarning')
def test_a_file_with_a_wrong_byte_anywhere(path, write):
    content = an_example(path, write)
    rng = np.random.default_rng(1)
    refused = 0
    for position in range(0, len(content), 2):
        damaged = bytearray(content)
        damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            tree = pickles.load(path)
        except errors.InputError:
            refused += 1
        else:
            if isinstance(tree, dict) and isinstance(model := tree.get('model'), dict):
                pickles.to_arrays({k: v for k, v in model.items() if isinstance(v, unpickling.Tensor)})
    assert refused > len(content) // 8


@pytest.mark.parametrize('content', [b'', b'\x80', b'PK\3\4', b'{}', bytes(100)])
def test_files_of_something_else(path, content):
    assert 'No such file' in refusal(path)
    path.write_bytes(content)
    assert refusal(path).startswith(f'{NO_FILE}ValueError')
    assert 'directory' in refusal(path.parent)


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


NEW_TYPES = ['uint16', 'uint32', 'uint64', 'float8_e4m3fn', 'float8_e5m2']


@FORMATS
@pytest.mark.parametrize('dtype', [*torch_files.TYPES, *NEW_TYPES])
def test_types_of_torch(path, torch, zipped, dtype):
    tensor = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    tensors = {'w': tensor, 's': tensor[1, 2], 'e': tensor[:0], 'v': tensor[1:]}
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    for key, weight in loaded(path).items():
        assert weight.dtype == getattr(jnp, dtype)
        if dtype in NEW_TYPES:
            np.testing.assert_array_equal(weight.astype(np.float32), tensors[key].float().numpy())
        else:
            assert_same(weight, of_torch(torch, tensors[key]))


@FORMATS
@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_views_of_torch(path, torch, zipped, protocol):
    base = torch.arange(120.0).reshape(4, 5, 6)
    views = {
        'base': base,
        'transposed': base.permute(2, 0, 1),
        'strided': base[1:, ::2, 1::3],
        'diagonal': base.diagonal(dim1=1, dim2=2),
        'parameter': torch.nn.Parameter(base[2].T),
        'channels_last': torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    torch.save(views, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    state = loaded(path)
    assert list(state) == list(views)
    for key, tensor in views.items():
        assert_same(state[key], of_torch(torch, tensor))


@FORMATS
def test_a_training_checkpoint_of_torch(path, torch, zipped):
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
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    tree = pickles.load(path)
    assert tree['epoch'] == 3
    assert tree['shape'] == (4, 3, 3, 3)
    for entry in ('state_dict', 'parameters'):
        state = pickles.to_arrays(tree[entry])
        assert list(state) == list(checkpoint[entry])
        for key, tensor in checkpoint[entry].items():
            assert_same(state[key], of_torch(torch, tensor))


def test_checksums_that_torch_left_out(path, torch):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'w': torch.arange(5.0)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(loaded(path)['w'], np.arange(5, dtype=np.float32))


@pytest.mark.filterwarnings('ignore:.*torch.jit:DeprecationWarning')
def test_programs_of_torch_are_refused(path, torch):
    for tree, reason in (
        (torch.nn.Linear(2, 2), "asks for 'torch.nn.modules.linear.Linear'"),
        ({'w': torch.zeros(2, dtype=torch.complex64).conj()}, 'conjugation'),
        ({'w': torch.eye(2).to_sparse()}, 'asks for'),
        ({'w': torch.zeros(1).expand(5)}, 'exceeds its storage'),
    ):
        torch.save(tree, path)
        assert reason in refusal(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert 'TorchScript' in refusal(path)


@FORMATS
def test_a_file_of_torch_that_is_cut_short(path, torch, zipped):
    tree = {'w': torch.arange(6.0), 'n': torch.nn.Parameter(torch.ones(3)), 'args': argparse.Namespace(a=1)}
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    assert_cuts_are_refused(path, 7)
