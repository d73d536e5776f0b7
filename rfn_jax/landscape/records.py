"""The rows of `landscape.csv`."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandscapeRow:
    """The landscape around one surrogate after one epoch: one row of `landscape.csv`.

    Attributes:
      surrogate: Name of the surrogate's architecture in the config.
      training: How it was trained.
      seed: Number of the surrogate's seed.
      epoch: Epoch of its checkpoint.
      loss: Mean cross-entropy on the training images that were used, which are not augmented.
      top_eigenvalue: Largest eigenvalue of the Hessian of that loss.
      top_eigenvalue_error: A bound of its error.
      trace: Estimated trace of the Hessian.
      trace_standard_error: Standard error of the trace.
      rho: Radius of the ball.
      worst_case_sharpness: Largest rise of the loss that was found in the ball.
      average_sharpness: Mean rise of the loss on the boundary of the ball.
      average_sharpness_standard_error: Standard error of that mean.
      gradient_cosine: Mean cosine of the input gradients of the surrogate and the validation targets, over validation images.
      n: Number of training images.
    """

    surrogate: str
    training: str
    seed: int
    epoch: int
    loss: float
    top_eigenvalue: float
    top_eigenvalue_error: float
    trace: float
    trace_standard_error: float
    rho: float
    worst_case_sharpness: float
    average_sharpness: float
    average_sharpness_standard_error: float
    gradient_cosine: float
    n: int
