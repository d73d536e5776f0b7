"""Makes a data set for the source `tfds` from image files, in the layout of TFDS and without TensorFlow.

`folder.read` and `archives.read` list the images of a folder and of the archives of ImageNet, without decoding them, and
`prepare` writes them: each shard holds a range of the images in the order of their ids, which mixes the classes. A shard is
whole or absent, so that a run that is interrupted can be continued, and its bytes do not depend on the number of workers.
"""

from rfn_jax.data.prepare import archives, folder, location
from rfn_jax.data.prepare.images import Images, Listing
from rfn_jax.data.prepare.options import Options
from rfn_jax.data.prepare.preparation import CORRUPT, prepare

__all__ = ['CORRUPT', 'Images', 'Listing', 'Options', 'archives', 'folder', 'location', 'prepare']
