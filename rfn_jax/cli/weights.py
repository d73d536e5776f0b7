"""`rfn-jax import-weights` and `rfn-jax export-weights`: convert PyTorch state dicts to checkpoints and back."""

import ast
import dataclasses
import json
import os
from collections.abc import Sequence

from absl import flags

from rfn_jax.cli import flag_values
from rfn_jax.core import console as console_lib
from rfn_jax.core import errors

IMPORT_SUMMARY = 'makes a checkpoint from a PyTorch state dict, for the targets and surrogates of a config.'
EXPORT_SUMMARY = 'writes a checkpoint as a PyTorch state dict, to a safetensors file.'
IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}
# torchvision's weights of these models were trained on images in [-1, 1] (transform_input).
CENTERED = {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}
CENTERED_MODELS = ('googlenet', 'inception_v3')
# For images in [0, 255], the weights of EfficientNet-Lite were trained with mean 127 and standard deviation 128.
LITE = {'mean': (127 / 255,) * 3, 'std': (128 / 255,) * 3}
LITE_MODELS = tuple(f'efficientnet_lite{number}' for number in range(5))
# Namings of files whose authors all use the default of the model.
NORMALIZED_ALIKE = ('torchvision', 'torchvision_old', 'efficientnet_pytorch')


def import_weights(arguments: Sequence[str]) -> int:
    """Runs `rfn-jax import-weights`.

    Raises:
      InputError: A flag or the file is wrong, or the weights do not match the model.
      RunError: The result could not be written.
    """
    values = flags.FlagValues()
    for name, default, help_text in (
        ('model', None, 'Name of the architecture; rfn-jax list models shows them.'),
        ('weights', None, 'The file: .safetensors, .npz, or a PyTorch file (.pt, .pth, .th, .pkl).'),
        ('out', None, 'Directory of the result; must not exist yet.'),
        ('naming', None, 'Naming of the keys; by default, the one that matches best.'),
        (
            'entry',
            None,
            'Entry of the file that holds the state dict, such as state_dict_ema; by default, the usual ones.',
        ),
    ):
        flags.DEFINE_string(name, default, help_text, flag_values=values)
    help_text = 'Number of classes; by default, 1000, or 10 for a cifar_ model.'
    flags.DEFINE_integer('num_classes', None, help_text, flag_values=values)
    help_text = 'Rows and columns of the images; by default, the usual size for the model.'
    flags.DEFINE_integer('image_size', None, help_text, flag_values=values)
    flags.DEFINE_integer('channels', 3, 'Number of channels of the images.', flag_values=values)
    for name in ('mean', 'std'):
        help_text = (
            f'{name} of each channel, for images in [0, 1], that the weights were trained with; by default, those of '
            'the published weights of the model.'
        )
        flags.DEFINE_list(name, None, help_text, flag_values=values)
    help_text = 'Option of the model, such as depth=20; may be repeated.'
    flags.DEFINE_multi_string('option', [], help_text, flag_values=values)
    help_text = (
        'Problems to allow: missing, unused, misshaped. Missing and misshaped tensors keep their initial values.'
    )
    flags.DEFINE_list('allow', [], help_text, flag_values=values)
    flag_values.parse(values, 'import-weights', IMPORT_SUMMARY, arguments, needed=('model', 'weights', 'out'))

    from rfn_jax import models, storage
    from rfn_jax.core import digests, rng
    from rfn_jax.models import sizes, weights
    from rfn_jax.storage import networks

    models.MODELS[values.model]  # reports an unknown name before anything else
    spec = {'name': values.model, **dict(_option(text) for text in values.option)}
    num_classes, image_shape = _classes_and_images(values, sizes.table().get(values.model))
    module = models.from_spec(spec, num_classes=num_classes)
    normalization = _normalization(values, sizes.table().get(values.model))
    networks.check_missing_or_empty(values.out)
    state = weights.read_state_dict(values.weights, entry=values.entry)
    console = console_lib.Console()
    # Another word would change the first variables of every network.
    key = rng.key_for(0, 'initialise')
    classifier = models.initialize(module, key, image_shape, num_classes=num_classes, **normalization)
    converted = weights.from_state_dict(
        classifier, state, naming=values.naming, allow=values.allow, source=values.weights
    )
    if values.mean is None and converted.naming not in NORMALIZED_ALIKE:
        raise errors.InputError(
            f'{values.weights} has the naming {converted.naming!r}, whose authors may use another normalization than the '
            'default; pass --mean and --std, such as --mean=0.485,0.456,0.406 --std=0.229,0.224,0.225'
        )
    problems = {kind: list(getattr(converted, kind)) for kind in weights.PROBLEMS}
    for kind, keys in problems.items():
        for text in keys:
            console.info(f'{kind}: {weights.printable(text)}')
    saved = storage.save_network(
        values.out,
        converted.classifier,
        architecture=spec,
        image_shape=image_shape,
        origin={
            'file': os.path.basename(values.weights),
            'sha256': digests.of_file(values.weights),
            'naming': converted.naming,
            **problems,
        },
    )
    console.info(
        f'{values.out}: {values.model} with {num_classes} classes, naming {converted.naming}, mean {saved.mean}, std '
        f"{saved.std}; a config refers to it as {{'network': {values.out!r}}}; the hash of architecture, normalization and "
        f'variables is {saved.sha256(saved.variables_sha256)}'
    )
    return 0


def export_weights(arguments: Sequence[str]) -> int:
    """Runs `rfn-jax export-weights`.

    Raises:
      InputError: A flag is wrong, or the checkpoint is missing.
      RunError: The checkpoint is damaged, or the result could not be written.
    """
    values = flags.FlagValues()
    for name, default, help_text in (
        (
            'checkpoint',
            None,
            'Network directory: imported, or in a work directory, such as WORKDIR/surrogates/resnet-rfn/seed0.',
        ),
        ('out', None, 'The file to write; its name must end in .safetensors.'),
        (
            'naming',
            None,
            'Naming of the keys; by default, the one they were imported with, or else the first of the family in the guide.',
        ),
    ):
        flags.DEFINE_string(name, default, help_text, flag_values=values)
    flags.DEFINE_integer('epoch', None, 'Epoch of the checkpoint; by default, the last one.', flag_values=values)
    flag_values.parse(values, 'export-weights', EXPORT_SUMMARY, arguments, needed=('checkpoint', 'out'))
    if not values.out.endswith('.safetensors'):
        raise errors.InputError(f'--out must end in .safetensors, got {values.out!r}')

    from rfn_jax import storage
    from rfn_jax.core import io
    from rfn_jax.models import weights

    out = io.absolute(values.out)
    network = storage.read_network(values.checkpoint)
    _, epoch = storage.open_checkpoint(values.checkpoint, values.epoch)
    io.check_writable(out)  # before the conversion, so that it fails early
    classifier = storage.load(values.checkpoint, epoch)
    naming = values.naming or network.origin.get('naming') or weights.namings(classifier)[0]
    state = weights.to_state_dict(classifier, naming=naming)
    about = {**dataclasses.asdict(network), 'epoch': epoch}
    weights.write_safetensors(out, state, {'rfn_jax': json.dumps(about, sort_keys=True)})
    console_lib.Console().info(
        f'{out}: {len(state)} tensors of {network.architecture["name"]}, naming {naming}; before the network, normalize '
        f'images in [0, 1] with mean {list(network.mean)} and std {list(network.std)}'
    )
    return 0


def _option(text: str) -> tuple[str, object]:
    """Parses the name and the value of an option of a model."""
    name, separator, value = text.partition('=')
    if not (name and separator) or name == 'name':
        raise errors.InputError(f'--option must be NAME=VALUE, such as depth=20, got {text!r}')
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _classes_and_images(values: flags.FlagValues, usual) -> tuple[int, tuple[int, int, int]]:
    """The number of classes and the shape of an image, from the flags or, by default, as they are `usual` for the model."""
    for name in ('num_classes', 'image_size'):
        if values[name].value is None and usual is None:
            raise errors.InputError(f'--model={values.model} needs --{name}, since it has no default')
    num_classes = usual.num_classes if values.num_classes is None else values.num_classes
    size = usual.image_size if values.image_size is None else values.image_size
    if min(num_classes, size, values.channels) < 1:
        raise errors.InputError(
            f'--num_classes, --image_size and --channels must be at least 1, got {num_classes}, {size}, {values.channels}'
        )
    return num_classes, (size, size, values.channels)


def _normalization(values: flags.FlagValues, usual) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation, from the flags or, by default, those of the published weights of the model."""
    if (values.mean is None) != (values.std is None):
        raise errors.InputError('--mean and --std belong together; pass both or neither')
    if values.mean is None:
        if values.model in LITE_MODELS:
            return LITE
        if usual is None or not usual.torchvision:
            raise errors.InputError(
                f'--model={values.model} needs the --mean and --std that its weights were trained with, such as '
                '--mean=0.4914,0.4822,0.4465 --std=0.2470,0.2435,0.2616'
            )
        return CENTERED if values.model in CENTERED_MODELS else IMAGENET
    try:
        given = {name: tuple(float(number) for number in values[name].value) for name in ('mean', 'std')}
    except ValueError as error:
        raise errors.InputError(f'--mean and --std must be numbers separated by commas: {error}') from error
    if not (all(0 <= value <= 1 for value in given['mean']) and all(0 < value <= 1 for value in given['std'])):
        raise errors.InputError(
            f'--mean and --std must be for images in [0, 1], got {given["mean"]} and {given["std"]}; divide them by 255 if '
            'they are for images in [0, 255]'
        )
    return given
