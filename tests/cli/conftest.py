import pytest

from rfn_jax.cli import main


@pytest.fixture
def refused(capsys):
    """A function that runs a command, which must end with a status and one line on stderr, and returns that line."""

    def refused(*arguments, status=2):
        capsys.readouterr()
        assert main.main(list(map(str, arguments))) == status
        printed = capsys.readouterr()
        assert status != 2 or printed.out == ''
        (line,) = printed.err.strip().splitlines()
        assert line.startswith('rfn-jax: ')
        return line

    return refused
