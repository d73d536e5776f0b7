import jax
import pytest

from rfn_jax import attacks
from rfn_jax.attacks import calls
from rfn_jax.core.errors import RunError


@pytest.mark.parametrize(
    ('chunk_size', 'advice'), [(1, 'chunk_size 1: use a smaller batch size$'), (4, 'or a chunk_size below 4$')]
)
def test_a_device_without_memory_left_says_what_to_change(chunk_size, advice):
    attack = attacks.make('vmi_fgsm', chunk_size=chunk_size)
    message = f"attack 'vmi_fgsm' ran out of device memory with 64 images.*{advice}"
    with pytest.raises(RunError, match=message), calls.memory_advice(attack, 64):
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate')


def test_other_errors_of_the_device_pass():
    with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'), calls.memory_advice(attacks.bim(), 1):
        raise jax.errors.JaxRuntimeError('INTERNAL: something else')
