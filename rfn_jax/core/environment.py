"""What results were made with: versions, platform and devices."""

import importlib.metadata
import os
import pathlib
import platform
import re

from jax.sharding import Mesh

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'rfn_jax')
NVIDIA = pathlib.Path('/proc/driver/nvidia/version')


def describe(mesh: Mesh) -> dict[str, str]:
    """Versions, platform and devices, as plain values."""
    device = mesh.devices.flat[0]
    found = {
        'python': platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        'platform': f'{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores',
        'devices': f'{mesh.size} x {device.device_kind}',
        'runtime': ' '.join(device.client.platform_version.split()),
    }
    if device.platform != 'cpu' and NVIDIA.exists():
        driver = re.search(r'\b\d+\.\d+(\.\d+)?\b', NVIDIA.read_text(encoding='utf-8'))
        found['driver'] = f'NVIDIA {driver.group()}' if driver else 'NVIDIA'
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # a source tree on the path that is not installed
        return 'not installed'
