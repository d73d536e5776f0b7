"""Converts a PyTorch state dict to the variables of a classifier, and back."""

import dataclasses
from collections.abc import Collection, Mapping

import flax.traverse_util
import jax
import numpy as np

from rfn_jax.core import checks, errors
from rfn_jax.models import classifier as classifier_lib
from rfn_jax.models.weights import layout, names

# Buffers that are determined by the architecture or used only in training.
IGNORED = ('num_batches_tracked', 'relative_position_index', 'attn_mask')
PROBLEMS = ('missing', 'unused', 'misshaped')
MAX_LISTED = 6


@dataclasses.dataclass(frozen=True)
class Converted:
    """A classifier with the weights of a state dict.

    Attributes:
      classifier: The classifier.
      naming: Name of the naming that the keys follow.
      missing: Keys that the model needs but the state dict lacks; these leaves keep their initial values.
      unused: Keys that the model does not use.
      misshaped: Keys of tensors with the wrong shape, and both shapes; these leaves keep their initial values.
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
    """Replaces the variables of a classifier with the tensors of a PyTorch state dict, as float32.

    Args:
      classifier: A classifier with its initial values, which are kept where a missing or misshaped tensor is allowed.
      state: Tensors by key, such as `read_state_dict` returns them.
      naming: Name of the naming of the keys (`namings`); by default, the one with the fewest problems.
      allow: Which of the problems `'missing'`, `'unused'` and `'misshaped'` to allow.
      source: Name of the state dict in error messages.

    Returns:
      The classifier, and the tensors that did not match.

    Raises:
      InputError: Tensors are missing, unused or misshaped without being allowed to be, a tensor holds values that are not
        finite or not floating-point numbers, the naming is unknown, or the family of the model has none.
    """
    for kind in allow:
        checks.one_of('problem to allow', kind, PROBLEMS)
    rules = _rules_by_naming(classifier, naming)
    candidates = [_match(classifier, state, name) for name in ([naming] if naming else rules)]
    best = min(candidates, key=lambda match: len(match.missing) + len(match.misshaped) + len(match.unused))
    problems = [kind for kind in PROBLEMS if getattr(best, kind) and kind not in allow]
    if problems:
        details = '; '.join(f'{kind}: {_list_first(getattr(best, kind))}' for kind in problems)
        raise errors.InputError(
            f'{source} does not match the model (naming {best.naming!r}): {details}; does the model need other options? '
            f'Allow {" and ".join(map(repr, problems))} to use the tensors that match anyway'
        )
    if not best.matched:
        raise errors.InputError(f'{source} has no tensor that matches the model (naming {best.naming!r})')

    leaves = flax.traverse_util.flatten_dict(classifier.variables)
    for path, slot in best.matched.items():
        tensor = np.asarray(state[slot.key])
        if tensor.dtype.kind not in 'fV':  # V: bfloat16
            raise errors.InputError(f'{slot.key} of {source} holds {tensor.dtype.name}, not floating-point numbers')
        with np.errstate(over='ignore'):  # overflow is reported below
            piece = np.split(tensor, slot.pieces)[slot.piece].astype(np.float32)
        if not np.isfinite(piece).all():
            raise errors.InputError(f'{slot.key} of {source} holds values that are not finite')
        leaves[path] = layout.to_leaf(path, piece, leaves[path].shape)
    variables = flax.traverse_util.unflatten_dict(leaves)
    return Converted(classifier.replace(variables=variables), best.naming, best.missing, best.unused, best.misshaped)


def to_state_dict(classifier: classifier_lib.Classifier, *, naming: str | None = None) -> dict[str, np.ndarray]:
    """Converts the variables of a classifier to a PyTorch state dict, which `load_state_dict` of the PyTorch model accepts.

    For `microsoft`'s Swin, `load_state_dict` needs `strict=False`, because the state dict does not contain its masks.

    Args:
      classifier: The classifier.
      naming: Name of the naming of the keys (`namings`); by default, the first one of the family.

    Returns:
      Arrays by key.

    Raises:
      InputError: The naming is unknown, or the family of the model has none.
    """
    rules = _rules_by_naming(classifier, naming)
    naming = naming or next(iter(rules))
    leaves = flax.traverse_util.flatten_dict(jax.device_get(classifier.variables))
    pieces: dict[str, dict[int, np.ndarray]] = {}
    for path, slot in layout.slots(classifier.variables, rules[naming]).items():
        tensor = layout.to_tensor(path, np.asarray(leaves[path], np.float32))
        pieces.setdefault(slot.key, {})[slot.piece] = tensor
    state = {key: np.concatenate([by_index[i] for i in sorted(by_index)]) for key, by_index in pieces.items()}
    buffer = names.BUFFERS.get((type(classifier.module).__name__, naming))
    if buffer:
        neighbor, suffix, values = buffer
        keys = [key for key in state if key.endswith(neighbor)]
        state |= {key.removesuffix(neighbor) + suffix: values(classifier.module).astype(np.int64) for key in keys}
    return state


def namings(classifier: classifier_lib.Classifier) -> tuple[str, ...]:
    """The names of the namings of the family of a classifier.

    Raises:
      InputError: The family has no naming.
    """
    return tuple(layout.namings_of(classifier.module))


def _rules_by_naming(classifier: classifier_lib.Classifier, naming: str | None) -> Mapping[str, names.Rules]:
    """The rules of each naming of the family; if `naming` is given, it must be one of them."""
    rules = layout.namings_of(classifier.module)
    if naming is not None:
        checks.one_of(f'naming of {type(classifier.module).__name__}', naming, rules)
    return rules


@dataclasses.dataclass(frozen=True)
class _Match:
    """How a state dict matches the leaves of a model under one naming."""

    naming: str
    matched: dict[tuple[str, ...], layout.Slot]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misshaped: tuple[str, ...]


def _match(classifier: classifier_lib.Classifier, state: Mapping[str, np.ndarray], naming: str) -> _Match:
    slots = layout.slots(classifier.variables, layout.namings_of(classifier.module)[naming])
    matched, missing, misshaped = {}, {}, {}
    for path, slot in slots.items():
        if slot.key not in state:
            missing[slot.key] = slot.key
        elif tuple(state[slot.key].shape) != slot.tensor_shape:
            shape = list(state[slot.key].shape)
            misshaped[slot.key] = f'{slot.key} has shape {shape} instead of {list(slot.tensor_shape)}'
        else:
            matched[path] = slot
    needed = {slot.key for slot in slots.values()}
    unused = tuple(key for key in state if key not in needed and key.rsplit('.', 1)[-1] not in IGNORED)
    return _Match(naming, matched, tuple(missing), unused, tuple(misshaped.values()))


def _list_first(items: tuple[str, ...]) -> str:
    more = f' and {len(items) - MAX_LISTED} more' if len(items) > MAX_LISTED else ''
    return f'{", ".join(map(printable, items[:MAX_LISTED]))}{more}'


def printable(text: str) -> str:
    """Escapes characters on which a terminal would act, for text from untrusted files, such as keys."""
    return ascii(text)[1:-1]
