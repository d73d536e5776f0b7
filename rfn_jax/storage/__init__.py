"""What is stored on disk between the stages: network directories, adversarial sets, and the formats of other tools."""

from rfn_jax.storage.adversarial_set import AdversarialSet, load_if_made_from
from rfn_jax.storage.adversarial_set import load as load_adversarial_set
from rfn_jax.storage.adversarial_set import save as save_adversarial_set
from rfn_jax.storage.description import Network
from rfn_jax.storage.description import read as read_network
from rfn_jax.storage.finished_batches import FinishedBatches
from rfn_jax.storage.interchange import read_folder, read_npz, write_folder
from rfn_jax.storage.networks import (
    load,
    load_in_all_processes,
    open_checkpoint,
    template,
    template_in_all_processes,
)
from rfn_jax.storage.networks import save as save_network

__all__ = [
    'AdversarialSet', 'FinishedBatches', 'Network', 'load', 'load_adversarial_set', 'load_if_made_from',
    'load_in_all_processes', 'open_checkpoint',
    'read_folder', 'read_network', 'read_npz', 'save_adversarial_set', 'save_network', 'template',
    'template_in_all_processes', 'write_folder',
]  # fmt: skip
