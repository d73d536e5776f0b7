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


def test_a_log_gets_whole_lines_and_always_the_last_one(log):
    with make(log, lines_every_s=1000).task('train [sgd]', 3) as advance:
        for loss in (2.5, 1.25, 1 / 3):
            advance(loss=loss)
    assert log.getvalue() == 'train [sgd]: 3/3 loss 0.3333 (0 s)\n'


def test_a_log_gets_a_line_each_time_when_asked(log):
    with make(log, lines_every_s=0).task('craft', 2) as advance:
        advance()
        advance(rate=0.5)
    assert log.getvalue().splitlines() == ['craft: 1/2 (0 s)', 'craft: 2/2 rate 0.5 (0 s)']


def test_lines_are_spaced_in_time(log, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console_lib.time, 'monotonic', lambda: now[0])
    with make(log, lines_every_s=20).task('train', 10) as advance:
        for _ in range(10):
            now[0] += 9
            advance()
    assert log.getvalue().splitlines() == [
        'train: 3/10 (27 s)',
        'train: 6/10 (54 s)',
        'train: 9/10 (81 s)',
        'train: 10/10 (90 s)',
    ]


def test_a_resumed_task_counts_from_where_it_was(log):
    with make(log, lines_every_s=0).task('train', 5, done=3) as advance:
        advance()
    assert log.getvalue() == 'train: 4/5 (0 s)\n'


def test_a_log_has_no_control_characters(log):
    with make(log, lines_every_s=0).task('train', 1) as advance:
        advance(loss=1.0)
    assert '\x1b' not in log.getvalue()
    assert '\r' not in log.getvalue()


def test_a_terminal_gets_a_bar_that_takes_no_markup(log):
    with make(log, terminal=True).task('train [bold]x[/bold]', 2) as advance:
        advance(loss=0.5)
        advance(loss=0.25)
    assert '[bold]x[/bold]' in log.getvalue()
    assert '2/2' in log.getvalue()
    assert 'loss 0.25' in log.getvalue()


def test_an_error_inside_a_task_passes_through(log):
    with pytest.raises(KeyError), make(log).task('train', 2):
        raise KeyError('x')
