"""The shape of the loss around weights: curvature, sharpness in a ball, lines and planes, and how gradients align.

Everything but `of_classifier` and `input_gradient_cosines` knows a `MeanLoss` and its parameters, and no model.
"""

from rfn_jax.landscape.alignment import input_gradient_cosines
from rfn_jax.landscape.curvature import Density, Eigenvalues, Estimate, density, eigenvalues, trace
from rfn_jax.landscape.mean_loss import MeanLoss, of_classifier, value
from rfn_jax.landscape.paths import filter_normalized, line, plane
from rfn_jax.landscape.records import LandscapeRow
from rfn_jax.landscape.sharpness import average_sharpness, worst_case_sharpness

__all__ = [
    'Density', 'Eigenvalues', 'Estimate', 'LandscapeRow', 'MeanLoss', 'average_sharpness', 'density', 'eigenvalues',
    'filter_normalized', 'input_gradient_cosines', 'line', 'of_classifier', 'plane', 'trace', 'value', 'worst_case_sharpness',
]  # fmt: skip
