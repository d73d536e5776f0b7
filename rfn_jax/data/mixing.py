"""Mixup and cutmix on the device: each example is mixed with another one of its batch, and so is its label.

Axes: `B` examples of the global batch, `H W` rows and columns, `C` channels, `K` classes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from rfn_jax.core import checks


@dataclasses.dataclass(frozen=True)
class Mixing:
    r"""Mixes every example of a batch with the one before it, and the first one with the last.

    For an example :math:`(x, y)` and its partner :math:`(x', y')`, mixup gives
    :math:`(\lambda x + (1 - \lambda) x', \lambda y + (1 - \lambda) y')` with
    :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)`. Cutmix draws :math:`\lambda` in the same way and pastes a box of the
    partner into the image: its center is uniform over the pixels, its sides are :math:`\sqrt{1 - \lambda}` of those of the
    image (rounded down to an even number of pixels), it is clipped to the image, and the weight of :math:`y'` is the share of
    the area that it covers. If both are on, each example uses one of them, each with probability 1/2.

    The formulas and the partner are those of torchvision's `MixUp` and `CutMix`. Since batches are shuffled, the neighbor is
    a random other example; it depends on the order of the epoch alone and not on the number of devices, and a device needs
    only one example of another device. Torchvision draws one :math:`\lambda` for a batch. Here each example has its own
    (the mode `elem` of timm): it then depends on the key of the example alone, and groups or micro-batches of a few examples
    have about the same share of strongly mixed examples as the whole batch.

    Attributes:
      num_classes: K.
      mixup: :math:`\alpha` of mixup, at least 0; 0 for none. 0.2 is usual on ImageNet.
      cutmix: :math:`\alpha` of cutmix, at least 0; 0 for none. 1 is usual.

    Raises:
      InputError: An alpha is negative or not finite.

    References:
      Zhang et al., `mixup: Beyond Empirical Risk Minimization <https://arxiv.org/abs/1710.09412>`_, 2017.

      Yun et al., `CutMix <https://arxiv.org/abs/1905.04899>`_, 2019.
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        checks.number('mixup', self.mixup, at_least=0)
        checks.number('cutmix', self.cutmix, at_least=0)

    def __call__(self, images: jax.Array, labels: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mixes a batch.

        Args:
          images: Floats `[B, H, W, C]`.
          labels: int32 `[B]` in `[0, K)`.
          keys: A key for each example, `[B]`.

        Returns:
          The mixed images and their labels, float32 probabilities `[B, K]`.
        """
        classes = jax.nn.one_hot(labels, self.num_classes)
        if not (self.mixup or self.cutmix):
            return images, classes
        partners = jnp.roll(images, 1, axis=0)
        # The weight of the example itself, for each pixel and for the label.
        weights, share = jax.vmap(lambda key: self._weights(key, images.shape[1:3]))(keys)
        mixed = weights[..., None] * images + (1 - weights[..., None]) * partners
        return mixed, share[:, None] * classes + (1 - share[:, None]) * jnp.roll(classes, 1, axis=0)

    def _weights(self, key: jax.Array, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
        """The weights of an example's own pixels `[H, W]`, and that of its own label."""
        choice_key, mixup_key, cutmix_key, box_key = jax.random.split(key, 4)
        mixup, cutmix = None, None
        if self.mixup:
            share = symmetric_beta(mixup_key, self.mixup)
            mixup = jnp.broadcast_to(share, size), share
        if self.cutmix:
            own = _outside_box(box_key, symmetric_beta(cutmix_key, self.cutmix), size)
            cutmix = own, jnp.mean(own)
        if mixup is None or cutmix is None:
            return cutmix if mixup is None else mixup
        use_mixup = jax.random.bernoulli(choice_key)
        return jax.tree.map(lambda a, b: jnp.where(use_mixup, a, b), mixup, cutmix)


def symmetric_beta(key: jax.Array, alpha: float) -> jax.Array:
    r"""A draw from :math:`\mathrm{Beta}(\alpha, \alpha)`, exact and without a loop, unlike `jax.random.beta`.

    With a loop for every example, devices would have to agree after each iteration whether to go on.

    :math:`Y = (1 + \sqrt{1 - U^{2 / (2 \alpha + 1)}} \cos 2 \pi V) / 2` is
    :math:`\mathrm{Beta}(\alpha + 1, \alpha + 1)` for uniform U and V. If :math:`G \sim \mathrm{Gamma}(\alpha + 1)`, then
    :math:`G U^{1 / \alpha} \sim \mathrm{Gamma}(\alpha)`; for the ratio of two of them, the log-odds of Y grow by
    :math:`1 / \alpha` times the difference of two exponential variables, which has a Laplace distribution.

    Args:
      key: A scalar key.
      alpha: :math:`\alpha`, above 0.

    Returns:
      Scalar float32 in [0, 1].

    References:
      Devroye, `Non-Uniform Random Variate Generation <http://luc.devroye.org/rnbookindex.html>`_, 1986, chapter IX.
    """
    radius_key, angle_key, shift_key = jax.random.split(key, 3)
    radius = jnp.sqrt(1 - jax.random.uniform(radius_key) ** (2 / (2 * alpha + 1)))
    log_odds = 2 * jnp.arctanh(radius * jnp.cos(2 * jnp.pi * jax.random.uniform(angle_key)))
    return jax.nn.sigmoid(log_odds + jax.random.laplace(shift_key) / alpha)


def _outside_box(key: jax.Array, share: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A mask `[H, W]` that is 0 in a random box of about `1 - share` of the area, and 1 outside."""
    inside = []
    for axis_key, length in zip(jax.random.split(key), size, strict=True):
        center = jax.random.randint(axis_key, (), 0, length)
        half = jnp.floor(0.5 * jnp.sqrt(1 - share) * length).astype(jnp.int32)
        positions = jnp.arange(length)
        inside.append((positions >= center - half) & (positions < center + half))
    rows, columns = inside
    return 1 - (rows[:, None] & columns[None, :]).astype(jnp.float32)
