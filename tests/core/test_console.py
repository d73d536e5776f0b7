import io

import pytest
import rich.console

from rfn_jax.core import console as console_lib


@pytest.fixture
def log():
    return io.StringIO()


def make(log, *, terminal=False, lines_every_s=20.0):
    rich_console = rich.console.Console(file=log, force_terminal=terminal, highlight=False, soft_wrap=True, width=120)
    return console_lib.Console(rich_console, lines_every_s=lines_every_s)


@pytest.mark.parametrize(
    'message',
    [
        '[bold]x[/bold] [0, 1] [/]',
        'eps [red',
        'x ' * 200,
        'linf:100:bim, :key: and :smile:',
        r'a\[b]',
        'success 61.2 % of 1,000',
    ],
)
def test_info_prints_the_message_literally(log, message):
    make(log).info(message)
    assert log.getvalue() == message + '\n'


def test_by_default_it_prints_to_standard_output(capsys):
    console_lib.Console().info('hello [b]')
    assert capsys.readouterr().out == 'hello [b]\n'


@pytest.mark.parametrize(
    ('every_s', 'total', 'done', 'figures', 'lines'),
    [
        (1000, 3, 0, [{'loss': 2.5}, {'loss': 1.25}, {'loss': 1 / 3}], ['train [sgd]: 3/3 loss 0.3333 (0 s)']),
        (0, 2, 0, [{}, {'rate': 0.5}], ['train [sgd]: 1/2 (0 s)', 'train [sgd]: 2/2 rate 0.5 (0 s)']),
        (0, 5, 3, [{}], ['train [sgd]: 4/5 (0 s)']),
    ],
    ids=['always the last one', 'each time when asked', 'counts from where a resumed task was'],
)
def test_a_log_gets_whole_lines_without_control_characters(log, every_s, total, done, figures, lines):
    with make(log, lines_every_s=every_s).task('train [sgd]', total, done=done) as advance:
        for values in figures:
            advance(**values)
    assert log.getvalue() == '\n'.join([*lines, ''])


def test_lines_are_spaced_in_time(log, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console_lib.time, 'monotonic', lambda: now[0])
    with make(log, lines_every_s=20).task('train', 10) as advance:
        for _ in range(10):
            now[0] += 9
            advance()
    assert log.getvalue().splitlines() == [f'train: {n}/10 ({9 * n} s)' for n in (3, 6, 9, 10)]


def test_a_terminal_gets_a_bar_that_takes_no_markup(log):
    with make(log, terminal=True).task('train [bold]x[/bold]', 2) as advance:
        advance(loss=0.5)
        advance(loss=0.25)
    for text in ('[bold]x[/bold]', '2/2', 'loss 0.25'):
        assert text in log.getvalue()


def test_an_error_inside_a_task_passes_through(log):
    with pytest.raises(KeyError), make(log).task('train', 2):
        raise KeyError('x')
