"""A minimizer and the descent along its gradient, as one optax transformation whose two components can run separately."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import optax


class OptimizerState(NamedTuple):
    """State of an `Optimizer`.

    Attributes:
      minimizer: State of the minimizer.
      descent: State of the descent.
    """

    minimizer: optax.OptState
    descent: optax.OptState


class Optimizer(optax.GradientTransformationExtraArgs):  # type: ignore[misc]  # optax has no py.typed
    """`optax.chain(minimizer, descent)`, with its components available as attributes.

    It can be used wherever a chain can. Training with m-sharpness needs the separate components: the minimizer runs once for
    each group of the batch, and the descent runs once, along the mean of the gradients that the minimizer returns.

    Copies and `jax.tree.map` keep the components. `_replace` returns a plain transformation without them, since it changes
    the `init` and `update` that they define.

    Attributes:
      minimizer: Transformation that returns the gradient to descend along, such as `optim.rfn_sam()`; `optax.identity()` for
        none.
      descent: Transformation that follows it, such as `optim.momentum_sgd(...)` or any chain.
    """

    minimizer: optax.GradientTransformationExtraArgs
    descent: optax.GradientTransformationExtraArgs

    def __new__(cls, minimizer: optax.GradientTransformation, descent: optax.GradientTransformation) -> 'Optimizer':
        """Chains the minimizer and the descent."""
        minimizer, descent = map(optax.with_extra_args_support, (minimizer, descent))

        def init_fn(params: optax.Params) -> OptimizerState:
            return OptimizerState(minimizer.init(params), descent.init(params))

        def update_fn(
            updates: optax.Updates, state: OptimizerState, params: optax.Params | None = None, **extra_args: Any
        ) -> tuple[optax.Updates, OptimizerState]:
            updates, minimizer_state = minimizer.update(updates, state.minimizer, params, **extra_args)
            updates, descent_state = descent.update(updates, state.descent, params, **extra_args)
            return updates, OptimizerState(minimizer_state, descent_state)

        self: Optimizer = super().__new__(cls, init_fn, update_fn)
        self.minimizer, self.descent = minimizer, descent
        return self

    def __getnewargs__(self) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """Returns the arguments of `__new__` from which copies are made."""
        return self.minimizer, self.descent

    @classmethod
    def _make(cls, functions: Iterable[Callable[..., Any]]) -> optax.GradientTransformationExtraArgs:
        return optax.GradientTransformationExtraArgs(*functions)


def _unflatten(_: None, children: tuple[Any, Any]) -> Any:
    # JAX also unflattens with placeholders, from which no optimizer can be made.
    are_components = all(isinstance(child, optax.GradientTransformation) for child in children)
    return Optimizer(*children) if are_components else tuple(children)


jax.tree_util.register_pytree_node(Optimizer, lambda tx: ((tx.minimizer, tx.descent), None), _unflatten)
