import dataclasses
import io

import pytest
import rich.console

from rfn_jax import bench
from rfn_jax.core.errors import InputError

SGD = bench.Row(
    model='resnet50', work='sgd', kind='training', precision='bfloat16', batch_size=256, seconds=(0.1, 0.3, 0.2),
    model_tflops=6.0, utilization=0.25, compile_s=12.5, memory_bytes=2**30,
)  # fmt: skip
RFN = dataclasses.replace(SGD, work='rfn_sam', seconds=(0.5, 0.3, 0.4), utilization=None)
FAILED = dataclasses.replace(SGD, work='looksam', seconds=(), error='not enough device memory')
BIM = dataclasses.replace(SGD, kind='attack', work='bim-50', seconds=(4.0,))


def text(*tables):
    console = rich.console.Console(file=io.StringIO(), width=140)
    for table in tables:
        console.print(table)
    return [' '.join(line.split()) for line in console.file.getvalue().splitlines()]


def test_one_table_per_group_with_the_cost_relative_to_sgd():
    assert (SGD.median, SGD.images_per_s) == (0.2, 1280)
    lines = text(*bench.tables([SGD, RFN, FAILED, BIM]))
    titles = [f'{kind} of resnet50, batch 256, bfloat16' for kind in ('training', 'attack')]
    assert [line for line in lines if 'resnet50' in line] == titles
    assert 'sgd 200 100 300 1,280 1.00 25.0% 12.5 1.0' in lines
    assert 'rfn_sam 400 300 500 640 2.00 12.5 1.0' in lines
    assert any(line.startswith('looksam not enough') for line in lines)
    assert 'bim-50 4000 4000 4000 64 25.0% 12.5 1.0' in lines


def test_what_is_written_is_read(tmp_path):
    bench.write(tmp_path / 'a.json', {'devices': '1 x cpu'}, 'rfn-jax bench', [SGD, FAILED])
    environment, rows = bench.read(tmp_path / 'a.json')
    assert environment == {'devices': '1 x cpu'}
    assert [dataclasses.replace(row, seconds=tuple(row.seconds)) for row in rows] == [SGD, FAILED]
    assert '"images_per_s": 1280.0' in (tmp_path / 'a.json').read_text()


@pytest.mark.parametrize(
    'content',
    ['[]', '{}', '{"rows": [1], "environment": {}}', '{"rows": [{"model": "a"}], "environment": {}}',
     '{"environment": {}, "rows": [{"model": "a", "work": "b", "kind": "c", "precision": "d", "batch_size": 1, '
     '"seconds": [0]}]}'],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / 'a.json').write_text(content)
    with pytest.raises(InputError, match=r'a\.json is not a result of rfn-jax bench'):
        bench.read(tmp_path / 'a.json')


def test_the_comparison_divides_the_earlier_time_by_ours_if_the_settings_are_the_same():
    faster = dataclasses.replace(SGD, seconds=(0.1,))
    elsewhere = dataclasses.replace(SGD, batch_size=128)
    lines = text(bench.compare([faster, RFN, FAILED, BIM], [SGD, elsewhere], title='compared'))
    assert lines[0] == 'compared'
    assert 'sgd: training of resnet50, batch 256, bfloat16 100 200 2.00 within the spread' in lines
    apart = dataclasses.replace(SGD, seconds=(0.05, 0.06))
    assert 'sgd: training of resnet50, batch 256, bfloat16 55 200 3.64' in text(bench.compare([apart], [SGD], title=''))
    assert not any(line.startswith('rfn_sam') for line in lines)
    nothing = ' '.join(text(bench.compare([BIM], [SGD], title='compared')))
    assert 'no model, batch size, precision and work in common' in nothing
