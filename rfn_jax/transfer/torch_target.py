"""A PyTorch model as a target for adversarial images that were crafted in JAX. Nothing else needs PyTorch.

Axes: `N` images, `H` rows, `W` columns, `C` channels, `K` classes.
"""

from typing import Any

import numpy as np

from rfn_jax.core import errors


class TorchTarget:
    """A target for `transfer.predictions` and `transfer.successes`; never a surrogate.

    Args:
      model: A `torch.nn.Module` from images `[N, C, H, W]` in [0, 1] to logits `[N, K]`, with its normalization inside; it
        is put into evaluation mode.
      device: The device that it runs on, such as `'cpu'` or `'cuda'`.

    Raises:
      InputError: PyTorch is not installed, or `model` is not a `torch.nn.Module`.
    """

    def __init__(self, model: Any, *, device: str = 'cpu'):
        try:
            import torch
        except ImportError as error:
            raise errors.InputError('a PyTorch target needs torch: pip install torch') from error
        if not isinstance(model, torch.nn.Module):
            raise errors.InputError(f'model must be a torch.nn.Module, got {type(model).__name__}')
        self._torch = torch
        self._device = device
        self._model = model.to(device).eval()

    def predict(self, images: np.ndarray, *, batch_size: int) -> np.ndarray:
        """The classes int32 `[N]` predicted for uint8 images `[N, H, W, C]`."""
        torch, predicted = self._torch, []
        with torch.no_grad():
            for start in range(0, len(images), batch_size):
                batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size].transpose(0, 3, 1, 2)))
                logits = self._model(batch.to(self._device).float() / 255)
                predicted.append(logits.argmax(1).cpu().numpy().astype(np.int32))
        return np.concatenate(predicted)
