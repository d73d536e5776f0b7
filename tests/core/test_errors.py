import pytest

from rfn_jax.core import errors


def test_the_nearest_names_are_offered():
    error = errors.unknown_name('model', 'resnet_18', ['resnet50', 'vgg13', 'resnet18'])
    assert isinstance(error, errors.InputError)
    assert str(error).startswith("unknown model 'resnet_18'; did you mean 'resnet18'")
    assert 'vgg13' not in str(error)


def test_without_a_near_name_all_are_listed():
    assert str(errors.unknown_name('model', 'zzz', ['b', 'a'])) == "unknown model 'zzz'; known: a, b"


@pytest.mark.parametrize('name', [3, None, 1.5])
def test_names_that_are_not_strings_are_shown(name):
    assert f"'{name}'" in str(errors.unknown_name('model', name, ['a']))


def test_users_of_the_library_can_catch_the_built_in_errors():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.RunError, RuntimeError)
    assert not issubclass(errors.RunError, ValueError)
