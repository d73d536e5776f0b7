"""Transferable adversarial examples from surrogates trained in large flat neighborhoods (RFN / l-SAM)."""

from rfn_jax import attacks, data, models, optim, storage, training, transfer
from rfn_jax.models import Classifier
from rfn_jax.optim import rfn_sam
from rfn_jax.storage import load

__version__ = '0.1.0'
__all__ = ['Classifier', 'attacks', 'data', 'load', 'models', 'optim', 'rfn_sam', 'storage', 'training', 'transfer']
