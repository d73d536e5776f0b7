"""Types of arithmetic, and the speed of devices in each according to their data sheets."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Precision:
    """The precision in which a network is computed.

    Attributes:
      dtype: Type of the activations; parameters are float32.
      matmul: Value of `jax.default_matmul_precision`, for products of float32 values.
    """

    dtype: jnp.dtype
    matmul: str

    def active(self) -> contextlib.AbstractContextManager:
        """Returns the context in which to trace programs."""
        return jax.default_matmul_precision(self.matmul)


PRECISIONS = {
    'float32': Precision(jnp.dtype('float32'), 'float32'),
    'tf32': Precision(jnp.dtype('float32'), 'tensorfloat32'),
    'bfloat16': Precision(jnp.dtype('bfloat16'), 'default'),
}

# Dense peak (without sparsity) of one device in TFLOP/s, from the vendors' data sheets, by the name of the device in JAX.
PEAKS = {
    'H200': {'bfloat16': 989.4, 'tf32': 494.7, 'float32': 66.9},
    'H100 PCIe': {'bfloat16': 756.0, 'tf32': 378.0, 'float32': 51.0},
    'H100': {'bfloat16': 989.4, 'tf32': 494.7, 'float32': 66.9},
    'A100': {'bfloat16': 312.0, 'tf32': 156.0, 'float32': 19.5},
    'L40S': {'bfloat16': 362.0, 'tf32': 183.0, 'float32': 91.6},
    'L4': {'bfloat16': 121.0, 'tf32': 60.0, 'float32': 30.3},
    'TPU v6': {'bfloat16': 918.0},
    'TPU v5p': {'bfloat16': 459.0},
    'TPU v5': {'bfloat16': 197.0},
    'TPU v4': {'bfloat16': 275.0},
}


def peak_flops(device_kind: str, precision: str) -> float | None:
    """Returns the dense peak of one device in FLOP/s.

    Args:
      device_kind: `jax.devices()[0].device_kind`, such as `'NVIDIA H100 80GB HBM3'` or `'TPU v5 lite'`.
      precision: Name in `PRECISIONS`.

    Returns:
      The peak, or None if it is unknown.
    """
    for name, peaks in PEAKS.items():
        if name in device_kind:
            return peaks[precision] * 1e12 if precision in peaks else None
    return None
