"""Images drawn by NumPy: smooth colors with edges and noise, the same everywhere."""

import numpy as np


def image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """An image uint8 `[height, width, channels]`."""
    generator = np.random.default_rng([seed, height, width, channels])
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    waves = np.sin(2 * np.pi * (rows * generator.uniform(1, 3, channels) + columns * generator.uniform(1, 3, channels)))
    edges = 40 * ((rows > 0.4) ^ (columns > 0.6))
    noise = generator.normal(0, 12, (height, width, channels))
    return np.clip(128 + 70 * waves + edges + noise, 0, 255).astype(np.uint8)
