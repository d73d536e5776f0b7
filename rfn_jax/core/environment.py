"""A description of what produced a set of results: versions, platform and devices."""

import importlib.metadata
import os
import pathlib
import platform
import re

from jax.sharding import Mesh

from rfn_jax.core.version import __version__

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax')
NVIDIA_DRIVER = pathlib.Path('/proc/driver/nvidia/version')


def describe(mesh: Mesh) -> dict[str, str]:
    """Returns versions, platform and devices as plain values."""
    device = mesh.devices.flat[0]
    description = {
        'python': platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        'rfn_jax': __version__,
        'platform': f'{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores',
        'devices': f'{mesh.size} x {device.device_kind}',
        'runtime': ' '.join(device.client.platform_version.split()),
    }
    if device.platform != 'cpu' and NVIDIA_DRIVER.exists():
        driver = re.search(r'\b\d+\.\d+(\.\d+)?\b', NVIDIA_DRIVER.read_text(encoding='utf-8'))
        description['driver'] = f'NVIDIA {driver.group()}' if driver else 'NVIDIA'
    return description
