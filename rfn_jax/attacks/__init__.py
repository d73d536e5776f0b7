"""Compiled attacks: the budget, the parts that attacks are composed of, and named attacks."""

from rfn_jax.attacks.arguments import check_images, check_labels
from rfn_jax.attacks.attack import Attack, SteppedSurrogate, Surrogate
from rfn_jax.attacks.auto_pgd import AutoPgd, apgd
from rfn_jax.attacks.budget import Budget
from rfn_jax.attacks.components import COMPONENTS
from rfn_jax.attacks.composition import LOSSES, compose
from rfn_jax.attacks.engine import GradientAttack
from rfn_jax.attacks.gradients.directions import accumulate, steepest
from rfn_jax.attacks.gradients.enhanced import enhanced_momentum
from rfn_jax.attacks.gradients.estimate import AT_IMAGE, GradientEstimate, Step
from rfn_jax.attacks.gradients.look_ahead import look_ahead
from rfn_jax.attacks.gradients.patchwise import patchwise
from rfn_jax.attacks.gradients.penalty import penalized_norm
from rfn_jax.attacks.gradients.reverse import reverse_perturbation
from rfn_jax.attacks.gradients.translation import translation_kernel
from rfn_jax.attacks.gradients.variance import variance_tuned
from rfn_jax.attacks.inputs.blocks import block_shuffle_rotate
from rfn_jax.attacks.inputs.resizing import input_diversity
from rfn_jax.attacks.inputs.scales import scale_copies
from rfn_jax.attacks.inputs.shifts import random_shift
from rfn_jax.attacks.inputs.spectrum import spectrum_simulation
from rfn_jax.attacks.inputs.transforms import Input, InputTransform, Pool
from rfn_jax.attacks.intermediate_level import IntermediateLevelAttack
from rfn_jax.attacks.presets import PRESETS
from rfn_jax.attacks.recipes.basic import bim, fgsm, mi_fgsm, ni_fgsm, pgd, pi_fgsm, ti_fgsm
from rfn_jax.attacks.recipes.estimates import emi_fgsm, pgn, rap, vmi_fgsm, vni_fgsm
from rfn_jax.attacks.recipes.inputs import admix, bsr, di_fgsm, si_ni_fgsm, ssa
from rfn_jax.attacks.recipes.networks import ghost, ila, linbp, sgm
from rfn_jax.attacks.recipes.table import ATTACKS, make, make_from
from rfn_jax.attacks.starts import at_original, uniform_in_ball
from rfn_jax.attacks.surrogates.ensembles import CheckpointCycle, Ensemble, checkpoint_cycle
from rfn_jax.attacks.surrogates.ghost import ghost_network
from rfn_jax.attacks.surrogates.linear_backprop import linear_backprop
from rfn_jax.attacks.surrogates.skip_gradient import skip_gradient
from rfn_jax.core.rng import example_keys

__all__ = [
    'ATTACKS', 'AT_IMAGE', 'COMPONENTS', 'LOSSES', 'PRESETS', 'Attack', 'AutoPgd', 'Budget', 'CheckpointCycle',
    'Ensemble', 'GradientAttack', 'GradientEstimate', 'Input', 'InputTransform', 'IntermediateLevelAttack', 'Pool',
    'Step', 'SteppedSurrogate', 'Surrogate', 'accumulate', 'admix', 'apgd', 'at_original', 'bim',
    'block_shuffle_rotate', 'bsr', 'check_images', 'check_labels', 'checkpoint_cycle', 'compose', 'di_fgsm',
    'emi_fgsm', 'enhanced_momentum', 'example_keys', 'fgsm', 'ghost', 'ghost_network', 'ila', 'input_diversity', 'linbp',
    'linear_backprop', 'look_ahead', 'make', 'make_from', 'mi_fgsm', 'ni_fgsm', 'patchwise', 'penalized_norm', 'pgd',
    'pgn', 'pi_fgsm', 'random_shift', 'rap', 'reverse_perturbation', 'scale_copies', 'sgm', 'si_ni_fgsm',
    'skip_gradient', 'spectrum_simulation', 'ssa', 'steepest', 'ti_fgsm', 'translation_kernel', 'uniform_in_ball',
    'variance_tuned', 'vmi_fgsm', 'vni_fgsm',
]  # fmt: skip
