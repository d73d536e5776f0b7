import pytest

from launch import stubs


@pytest.fixture
def commands(tmp_path):
    return stubs.Stubs(tmp_path)
