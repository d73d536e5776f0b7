"""A PyTorch state dict as the variables of a classifier, and back."""

import dataclasses
from collections.abc import Collection, Mapping

import flax.traverse_util
import jax
import numpy as np

from rfn_jax.core import checks, errors
from rfn_jax.models import classifier as classifier_lib
from rfn_jax.models.weights import layout, names

# Buffers that follow from the architecture or that only training uses.
IGNORED = ('num_batches_tracked', 'relative_position_index', 'attn_mask')
PROBLEMS = ('missing', 'unused', 'misshaped')
SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Converted:
    """A classifier with the weights of a state dict.

    Attributes:
      classifier: The classifier.
      naming: Which naming its keys followed.
      missing: Keys that the model needs and the state dict lacks; these leaves keep their initial values.
      unused: Keys that the model has no use for.
      misshaped: Keys of tensors of another shape, with both shapes; these leaves keep their initial values.
    """

    classifier: classifier_lib.Classifier
    naming: str
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misshaped: tuple[str, ...]


def from_state_dict(
    classifier: classifier_lib.Classifier,
    state: Mapping[str, np.ndarray],
    *,
    naming: str | None = None,
    allow: Collection[str] = (),
    source: str = 'the state dict',
) -> Converted:
    """A classifier whose variables are the tensors of a PyTorch state dict, as float32.

    Args:
      classifier: A classifier with its initial values, which stay where a tensor is allowed to be missing.
      state: Tensors by key, such as `read_state_dict` gives them.
      naming: Name of the naming of its keys (`namings`); by default the one with the fewest problems.
      allow: Which of `'missing'`, `'unused'` and `'misshaped'` tensors are allowed.
      source: What to call the state dict in messages.

    Returns:
      The classifier, and what did not fit.

    Raises:
      InputError: Tensors are missing, unused or of another shape and not allowed to be, a value is not finite or no
        number, the naming is unknown, or the family of the model has none.
    """
    for kind in allow:
        checks.one_of('problem to allow', kind, PROBLEMS)
    known = _known(classifier, naming)
    candidates = [_matched(classifier, state, name) for name in ([naming] if naming else known)]
    best = min(candidates, key=lambda match: len(match.missing) + len(match.misshaped) + len(match.unused))
    wrong = [kind for kind in PROBLEMS if getattr(best, kind) and kind not in allow]
    if wrong:
        found = '; '.join(f'{kind}: {_some(getattr(best, kind))}' for kind in wrong)
        raise errors.InputError(
            f'{source} does not fit the model (naming {best.naming!r}): {found}; '
            f'does the model need other options? Allow {" and ".join(map(repr, wrong))} to take what fits all the same'
        )
    if not best.placed:
        raise errors.InputError(f'{source} has no tensor that fits the model (naming {best.naming!r})')

    leaves = flax.traverse_util.flatten_dict(classifier.variables)
    for path, slot in best.placed.items():
        tensor = np.asarray(state[slot.key])
        if tensor.dtype.kind not in 'fV':  # V: bfloat16
            raise errors.InputError(f'{slot.key} of {source} holds {tensor.dtype.name}, not floating-point numbers')
        with np.errstate(over='ignore'):  # told in the next line
            piece = np.split(tensor, slot.pieces)[slot.piece].astype(np.float32)
        if not np.isfinite(piece).all():
            raise errors.InputError(f'{slot.key} of {source} holds values that are not finite')
        leaves[path] = layout.to_leaf(path, piece, leaves[path].shape)
    variables = flax.traverse_util.unflatten_dict(leaves)
    return Converted(classifier.replace(variables=variables), best.naming, best.missing, best.unused, best.misshaped)


def to_state_dict(classifier: classifier_lib.Classifier, *, naming: str | None = None) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict, by key, which `load_state_dict` of the PyTorch model takes as they are (of
    `microsoft`'s Swin with `strict=False`, since its masks are not among them).

    Args:
      classifier: The classifier.
      naming: Name of the naming of the keys (`namings`); the first one of the family by default.

    Raises:
      InputError: The naming is unknown, or the family of the model has none.
    """
    known = _known(classifier, naming)
    naming = naming or next(iter(known))
    leaves = flax.traverse_util.flatten_dict(jax.device_get(classifier.variables))
    pieces: dict[str, dict[int, np.ndarray]] = {}
    for path, slot in layout.slots(classifier.variables, known[naming]).items():
        tensor = layout.to_tensor(path, np.asarray(leaves[path], np.float32))
        pieces.setdefault(slot.key, {})[slot.piece] = tensor
    state = {key: np.concatenate([parts[i] for i in sorted(parts)]) for key, parts in pieces.items()}
    buffer = names.BUFFERS.get((type(classifier.module).__name__, naming))
    if buffer:
        beside, end, values = buffer
        keys = [key for key in state if key.endswith(beside)]
        state |= {key.removesuffix(beside) + end: values(classifier.module).astype(np.int64) for key in keys}
    return state


def namings(classifier: classifier_lib.Classifier) -> tuple[str, ...]:
    """The namings that the family of a classifier has.

    Raises:
      InputError: It has none.
    """
    return tuple(layout.namings_of(classifier.module))


def _known(classifier: classifier_lib.Classifier, naming: str | None) -> Mapping[str, names.Rules]:
    """The namings of the family; `naming` must be one of them if it is given."""
    known = layout.namings_of(classifier.module)
    if naming is not None:
        checks.one_of(f'naming of {type(classifier.module).__name__}', naming, known)
    return known


@dataclasses.dataclass(frozen=True)
class _Match:
    """How the leaves of a model lie in a state dict under one naming."""

    naming: str
    placed: dict[tuple[str, ...], layout.Slot]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misshaped: tuple[str, ...]


def _matched(classifier: classifier_lib.Classifier, state: Mapping[str, np.ndarray], naming: str) -> _Match:
    slots = layout.slots(classifier.variables, layout.namings_of(classifier.module)[naming])
    placed, missing, misshaped = {}, {}, {}
    for path, slot in slots.items():
        if slot.key not in state:
            missing[slot.key] = slot.key
        elif tuple(state[slot.key].shape) != slot.whole:
            misshaped[slot.key] = f'{slot.key} {list(state[slot.key].shape)} there and {list(slot.whole)} here'
        else:
            placed[path] = slot
    wanted = {slot.key for slot in slots.values()}
    unused = tuple(key for key in state if key not in wanted and key.rsplit('.', 1)[-1] not in IGNORED)
    return _Match(naming, placed, tuple(missing), unused, tuple(misshaped.values()))


def _some(items: tuple[str, ...]) -> str:
    more = f' and {len(items) - SHOWN} more' if len(items) > SHOWN else ''
    return f'{", ".join(map(printable, items[:SHOWN]))}{more}'


def printable(text: str) -> str:
    """A key of a file of others without characters that a terminal would act on."""
    return ascii(text)[1:-1]
