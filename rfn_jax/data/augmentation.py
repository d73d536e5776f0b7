"""The augmentation of training images as a config names it, in its three parts: on the host, on the devices, and mixing."""

import dataclasses

from rfn_jax.core import errors
from rfn_jax.data import crop_and_flip, host_augmentation, mixing, rand_augment, random_crop


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training images, in this order; by default nothing.

    Attributes:
      random_resized_crop: `(min_area, max_area)` of a random crop of the original image, as shares of its area, such as
        (0.08, 1); None for none. See `RandomResizedCrop`. It runs on the host.
      rand_augment: `(num_ops, magnitude)`, such as (2, 9); None for none. See `RandAugment`. It runs on the host.
      crop_padding: Padding of a random crop to the same size, in pixels; 0 for none. See `CropAndFlip`.
      flip: Whether to flip images left-right with probability 1/2.
      mixup: alpha of mixup; 0 for none. See `Mixing`.
      cutmix: alpha of cutmix; 0 for none. With both, each example uses one of them.

    Raises:
      InputError: A value is out of range.
    """

    crop_padding: int = 0
    flip: bool = False
    random_resized_crop: tuple[float, float] | None = None
    rand_augment: tuple[int, int] | None = None
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        self.on_host()
        self.on_device()
        self.mixing(num_classes=2)

    def on_host(self) -> host_augmentation.HostAugmentation | None:
        """The part that runs on the host; None if there is nothing to do, so that images may be stored on the devices."""
        if self.random_resized_crop is None and self.rand_augment is None:
            return None
        crop = operations = None
        if self.random_resized_crop is not None:
            crop = random_crop.RandomResizedCrop(tuple(self.random_resized_crop))
        if self.rand_augment is not None:
            if len(self.rand_augment) != 2:
                raise errors.InputError(f'rand_augment must be (num_ops, magnitude), got {self.rand_augment!r}')
            operations = rand_augment.RandAugment(*self.rand_augment)
        return host_augmentation.HostAugmentation(crop, operations)

    def on_device(self) -> crop_and_flip.CropAndFlip:
        """The part that runs on the devices, one image at a time."""
        return crop_and_flip.CropAndFlip(self.crop_padding, self.flip)

    def mixing(self, num_classes: int) -> mixing.Mixing | None:
        """The part that mixes the examples of a batch; None if there is none, so that labels stay integers."""
        mixed = mixing.Mixing(num_classes, self.mixup, self.cutmix)
        return mixed if self.mixup or self.cutmix else None
