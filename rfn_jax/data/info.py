"""Metadata of a data set, known before an image is read."""

import dataclasses

from rfn_jax.core import errors


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Shape of the images, names of the classes, and the statistics that classifiers use for normalization.

    Attributes:
      image_shape: `(H, W, C)`.
      class_names: The names of the K classes.
      mean: Mean of each channel of the training images, scaled to [0, 1].
      std: Standard deviation of each channel of the same images.

    Raises:
      InputError: There is not one mean and one standard deviation for each channel.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        channels = self.image_shape[2]
        for name in ('mean', 'std'):
            if len(values := getattr(self, name)) != channels:
                raise errors.InputError(f'{name} must have {channels} numbers, one for each channel, got {values!r}')

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)


def natural_statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation of each channel of ImageNet, which pretrained networks expect; of its mean if gray."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return (mean, std) if channels == 3 else ((0.449,), (0.226,))
