"""Converts weights from PyTorch checkpoints and back: reads files without executing anything, and maps tensor names.

state = weights.read_state_dict('resnet50-0676ba61.pth')          # {'conv1.weight': array, ...}
converted = weights.from_state_dict(classifier, state)            # converted.classifier is a Classifier with these weights
weights.write_safetensors('resnet50.safetensors', weights.to_state_dict(converted.classifier))
"""

from rfn_jax.models.weights.conversion import PROBLEMS, Converted, from_state_dict, namings, printable, to_state_dict
from rfn_jax.models.weights.files import read_state_dict, write_safetensors

__all__ = [
    'PROBLEMS', 'Converted', 'from_state_dict', 'namings', 'printable', 'read_state_dict', 'to_state_dict',
    'write_safetensors',
]  # fmt: skip
