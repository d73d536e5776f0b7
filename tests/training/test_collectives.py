"""What a step of RFN communicates between 8 devices, in bytes, from the program that XLA made of it."""

import collectives
import jax
import pytest
from test_groups import NORMALIZED, PLAIN, B, Run

SCALARS = 64  # bytes of the loss, the accuracy and the norms


def of_a_step(module, batch=B, devices=8, **options):
    """The collectives of a step, and the bytes of its gradient, which are those of the parameters."""
    run = Run('rfn_sam', devices, module=module, batch=batch, **options)
    return collectives.of(run.compiled().as_text()), sum(leaf.nbytes for leaf in jax.tree.leaves(run.state.params))


@pytest.mark.parametrize(('options', 'times'), [({}, 2), ({'group_size': 'device'}, 1), ({'group_size': 2}, 1)])
def test_a_step_reduces_one_gradient_or_two(options, times):
    found, size = of_a_step(PLAIN, **options)
    assert set(found) == {'all-reduce'}
    assert times * size <= found['all-reduce']['bytes'] <= times * size + SCALARS


@pytest.mark.parametrize(('options', 'times'), [({}, 2), ({'group_size': 'device'}, 1)])
def test_sharded_parameters_are_gathered_once_in_addition(options, times):
    found, size = of_a_step(PLAIN, shard=True, **options)
    # An all-reduce where XLA leaves it in place, as on the CPU, or a reduce-scatter of as many bytes.
    reduced = sum(values['bytes'] for kind, values in found.items() if kind in ('all-reduce', 'reduce-scatter'))
    assert times * size <= reduced <= times * size + SCALARS
    # All but the ten biases, which do not divide evenly over 8 devices.
    assert found['all-gather']['bytes'] == size - 10 * 4
    assert set(found) <= {'all-reduce', 'reduce-scatter', 'all-gather'}


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'group_size': 'device'}, {'shard': True}])
def test_nothing_that_is_communicated_grows_with_the_batch(options):
    assert of_a_step(NORMALIZED, **options)[0] == of_a_step(NORMALIZED, 2 * B, **options)[0]


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'group_size': 'device'}])
def test_what_a_device_sends_does_not_grow_with_the_number_of_devices(options):
    assert of_a_step(NORMALIZED, **options)[0] == of_a_step(NORMALIZED, devices=2, **options)[0]


def test_bytes_are_read_from_lines_of_both_backends():
    text = """
      %r = (f32[2,3]{1,0:T(8,128)}, /*index=1*/bf16[4]{0}) all-reduce(%a, %b), replica_groups={{0,1}}, to_apply=%add
      ROOT %s = f32[8]{0} all-reduce-start(%c), replica_groups=[1,2]<=[2], to_apply=%add
      %d = f32[8]{0} all-reduce-done(%s)
      %g = (f32[2]{0}, f32[16]{0}, u32[]{:S(2)}) all-gather-start(%e), replica_groups=[1,8]<=[8], dimensions={0}
      %h = f32[5]{0} reduce-scatter(%f), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
      %i = f32[5]{0} fusion(%all-reduce.1), kind=kLoop, calls=%all-gather
    """
    assert collectives.of(text) == {
        'all-reduce': {'count': 2, 'bytes': 24 + 8 + 32},
        'all-gather': {'count': 1, 'bytes': 64},
        'reduce-scatter': {'count': 1, 'bytes': 160},
    }
