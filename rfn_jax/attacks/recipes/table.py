"""The table of named attacks, and functions that make attacks by name.

The default budget and steps are those of the paper that this project reproduces (arXiv 2304.02688): L-infinity, eps = 4/255,
50 steps of eps/10, images in [0, 1]. The options of each attack default to those of its own paper or of its authors' code;
`presets.py` has those of other libraries.
"""

from collections.abc import Mapping
from typing import Any

from rfn_jax.attacks import attack, auto_pgd, components, composition, presets
from rfn_jax.attacks.recipes import basic, estimates, inputs, networks
from rfn_jax.core import errors, registry
from rfn_jax.core import options as options_lib

ATTACKS: registry.Registry[attack.Attack] = registry.Registry('attack')
for recipe in (
    basic.fgsm,
    basic.bim,
    basic.pgd,
    basic.mi_fgsm,
    basic.ti_fgsm,
    basic.pi_fgsm,
    basic.ni_fgsm,
    estimates.vmi_fgsm,
    estimates.vni_fgsm,
    estimates.pgn,
    estimates.emi_fgsm,
    estimates.rap,
    inputs.di_fgsm,
    inputs.si_ni_fgsm,
    inputs.admix,
    inputs.ssa,
    inputs.bsr,
    networks.sgm,
    networks.ghost,
    networks.linbp,
    networks.ila,
    auto_pgd.apgd,
):
    ATTACKS.register(recipe)


def make(name: str, *, preset: str | None = None, **options: object) -> attack.Attack:
    """Makes an attack by its name, or from components joined with `+`, such as `'mi+di+ti+sgm'`.

    Args:
      name: A name from `ATTACKS`, or components as for `compose`.
      preset: A name from `PRESETS`, whose defaults are used.
      **options: Options of the attack, which override those of the preset.

    Raises:
      InputError: A name or an option is unknown, missing, of the wrong type or out of range.
    """
    if isinstance(name, str) and ('+' in name or (name in components.COMPONENTS and name not in ATTACKS)):
        if preset is not None:
            raise errors.InputError(f'presets are for named attacks, not for the components {name!r}')
        return options_lib.call("composition 'compose'", composition.compose, dict(components=name, **options))
    return ATTACKS.make(name, **{**(presets.options(preset, name) if preset else {}), **options})


def make_from(spec: Mapping[str, Any]) -> attack.Attack:
    """Makes the attack that a config specifies: a mapping with `name`, optionally `preset`, and options; see `make`.

    Raises:
      InputError: As in `make`, or the spec is not a mapping with a name.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get('name'), str):
        raise errors.InputError(f'the spec of attack must be a mapping with a name, got {spec!r}')
    return make(**spec)
