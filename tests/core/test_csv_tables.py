import dataclasses

import numpy as np
import pytest

from rfn_jax.core import errors, tables


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    rate: float
    n: int
    low: float | None = None


def test_format_and_round_trip(tmp_path):
    path = tmp_path / 'x.csv'
    rows = [
        Row('a, "b"', 1 / 3, 10),
        Row('', np.float64(1e-9), np.int64(2), 0.5),
        Row('line\nbreak', 1.0, 3, float('nan')),
    ]
    tables.write(path, Row, rows)
    assert path.read_bytes() == (
        b'name,rate,n,low\n"a, ""b""",0.333333,10,\n,0.000000,2,0.500000\n"line\nbreak",1.000000,3,nan\n'
    )
    assert tables.read(path, Row) == [
        Row('a, "b"', 0.333333, 10), Row('', 0.0, 2, 0.5), Row('line\nbreak', 1.0, 3)
    ]  # fmt: skip


def test_a_table_without_rows_has_its_header(tmp_path):
    tables.write(tmp_path / 'x.csv', Row, [])
    assert (tmp_path / 'x.csv').read_text() == 'name,rate,n,low\n'
    assert tables.read(tmp_path / 'x.csv', Row) == []


def test_further_columns_are_ignored(tmp_path):
    (tmp_path / 'x.csv').write_text('n,more,name,rate,low\n1,2,a,0.5,\n')
    assert tables.read(tmp_path / 'x.csv', Row) == [Row('a', 0.5, 1)]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', r'x\.csv is empty'),
        (b'a,b\n\xff\xfe,1\n', r'x\.csv is not a CSV file'),
        (b'name,rate,n\na,0.5,1\n', r"x\.csv has no column 'low'"),
        (b'name,rate,n,low\na,0.5,1.5,\n', r"x\.csv, line 2: n is '1\.5', not an integer"),
        (b'name,rate,n,low\na,0.5,1,\nb,nan,1,\n', r"x\.csv, line 3: rate is 'nan', not a number"),
        (b'name,rate,n,low\na,0.5,1,x\n', r"line 2: low is 'x', not a number"),
        (b'name,rate,n,low\na,0.5\n', r'line 2: n is None, not an integer'),
    ],
)
def test_the_error_for_a_bad_file_is_one_line_that_names_the_place(tmp_path, content, message):
    (tmp_path / 'x.csv').write_bytes(content)
    with pytest.raises(errors.InputError, match=message) as caught:
        tables.read(tmp_path / 'x.csv', Row)
    assert '\n' not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(errors.InputError, match=r'could not read .*x\.csv: No such file'):
        tables.read(tmp_path / 'x.csv', Row)
