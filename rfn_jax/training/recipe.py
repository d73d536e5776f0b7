"""How a network is trained: the hyperparameters of a run, which are checked together."""

import dataclasses
from collections.abc import Mapping

import optax

from rfn_jax import data, optim
from rfn_jax.core import checks, errors, options
from rfn_jax.training import objectives


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyper-parameters of one training run; the defaults of the paper are in `configs/`.

    Attributes:
      epochs: Number of passes over the training set, at least 1.
      batch_size: Number of examples in a step.
      learning_rate: Learning rate of the first epoch.
      momentum: Momentum of SGD.
      weight_decay: Weight decay, applied to all parameters.
      decay_epochs: Epochs after which the learning rate is multiplied by `decay_factor`.
      decay_factor: See `decay_epochs`.
      minimizer: Name in `optim.MINIMIZERS` and its options, such as `{'name': 'rfn_sam', 'rho': 0.4}`. A `rho` of two
        numbers, `(rho_min, rho_max)`, follows the learning rate between 0 and `learning_rate`.
      warmup_epochs: Epochs over which the learning rate first grows linearly; see `optim.step_decay`.
      augmentation: Random changes of the training images; none by default.
      label_smoothing: Weight of the uniform distribution in the labels of the loss, in [0, 1); 0.1 is usual on ImageNet.
      group_size: Number of examples that share a perturbation: a divisor of `batch_size` (m-sharpness), `'device'`, or None
        for the whole batch; see `train_step`.
      micro_batch_size: Number of examples that pass through the network at once; None for all that share a perturbation. It
        must divide that number, and also the number of examples that `optim.esam` keeps unless that is at most
        `micro_batch_size`.
      shard_parameters: Whether parameters and the state of the optimizer are sharded over the devices, for large networks,
        or how many devices share a copy (all, if there are fewer). The result is the same up to rounding, so it cannot be
        changed for a network that exists.
      rematerialize: Whether the backward pass computes normalizations and activations again instead of storing them: less
        memory for more time. The result is the same up to rounding.
      steps_per_call: Number of steps that the host launches together, in one `lax.scan`; the result is the same. By default a
        whole epoch on an accelerator, where each launch takes time, and 1 on the CPU.
      streaming: Whether images are decoded while the devices work instead of being stored on the devices; the result is the
        same. By default, only if the images take more than 1 GiB, or are augmented on the host.
      workers: Number of processes that decode streamed images, which take seconds to start in each epoch; with 0, threads of
        the training process do. The result is the same.
      seeds_at_once: Number of networks that differ only in their seed and are trained at the same time, in one program, if so
        many are to be trained; the result is the same up to rounding. The devices hold the states and activations of all.

    Raises:
      InputError: A value is out of range, or the minimizer or one of its options is unknown.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    decay_epochs: tuple[float, ...]
    decay_factor: float
    minimizer: Mapping[str, object]
    augmentation: data.Augmentation = dataclasses.field(default_factory=data.Augmentation)
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    group_size: int | str | None = None
    micro_batch_size: int | None = None
    shard_parameters: bool | int = False
    rematerialize: bool = False
    steps_per_call: int | None = None
    streaming: bool | None = None
    workers: int = 0
    seeds_at_once: int = 1

    def __post_init__(self):
        checks.integer('epochs', self.epochs, at_least=1)
        checks.integer('batch_size', self.batch_size, at_least=1)
        if self.steps_per_call is not None:
            checks.integer('steps_per_call', self.steps_per_call, at_least=1)
        checks.integer('workers', self.workers, at_least=0)
        checks.integer('seeds_at_once', self.seeds_at_once, at_least=1)
        if self.decay_epochs and self.decay_epochs[-1] >= self.epochs:
            raise errors.InputError(f'decay_epochs {tuple(self.decay_epochs)} must be below epochs, {self.epochs}')
        self.optimizer(steps_per_epoch=1)
        self.check_sizes(devices=1)
        checks.number('warmup_epochs', self.warmup_epochs, at_least=0, below=self.epochs)
        checks.number('label_smoothing', self.label_smoothing, at_least=0, below=1)
        data.check_streaming(self.streaming, self.augmentation.on_host())
        if self.augmentation.mixing(num_classes=2) and self.batch_size < 2:
            raise errors.InputError(f'mixup and cutmix need a batch_size of at least 2, got {self.batch_size}')

    def check_sizes(self, devices: int) -> None:
        """Checks how a batch, and the state if it is sharded, are divided over devices.

        Raises:
          InputError: A size is not a divisor where it must be one.
        """
        parameters = options.parameters(optim.MINIMIZERS[self.minimizer['name']])
        gamma = parameters['gamma'].default if 'gamma' in parameters else 1.0
        objectives.check_sizes(
            self.batch_size,
            group_size=self.group_size,
            micro_batch_size=self.micro_batch_size,
            devices=devices,
            gamma=self.minimizer.get('gamma', gamma),
        )
        if not isinstance(self.shard_parameters, bool):
            checks.integer('shard_parameters, if it is neither True nor False,', self.shard_parameters, at_least=2)
            sharing = min(self.shard_parameters, devices)
            if devices % sharing:
                divisors = [n for n in range(1, devices + 1) if devices % n == 0]
                nearest = min(divisors, key=lambda n: abs(n - sharing))
                raise errors.InputError(
                    f'shard_parameters {sharing} does not divide {devices} devices; the nearest that does is {nearest}'
                )

    def schedule(self, steps_per_epoch: int) -> optax.Schedule:
        """Returns the learning rate as a function of the step."""
        return optim.step_decay(
            self.learning_rate,
            decay_epochs=self.decay_epochs,
            decay_factor=self.decay_factor,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=self.warmup_epochs,
        )

    def optimizer(self, steps_per_epoch: int) -> optim.Optimizer:
        """Returns the minimizer, followed by SGD with momentum."""
        descent = optim.momentum_sgd(
            self.schedule(steps_per_epoch), momentum=self.momentum, weight_decay=self.weight_decay
        )
        return optim.Optimizer(self._minimizer(steps_per_epoch), descent)

    def _minimizer(self, steps_per_epoch: int) -> optax.GradientTransformation:
        spec = dict(self.minimizer)
        if isinstance(spec.get('rho'), (tuple, list)):
            if len(spec['rho']) != 2 or not all(isinstance(rho, (int, float)) for rho in spec['rho']):
                raise errors.InputError(f'rho must be a number or (rho_min, rho_max), got {spec["rho"]!r}')
            spec['rho'] = optim.rho_with_learning_rate(
                self.schedule(steps_per_epoch),
                rho_min=spec['rho'][0],
                rho_max=spec['rho'][1],
                learning_rate_max=self.learning_rate,
            )
        try:
            return optim.MINIMIZERS.make_from(spec)
        except (TypeError, ValueError) as error:
            raise errors.InputError(str(error)) from error
