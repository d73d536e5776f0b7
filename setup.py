"""Packaging of rfn_jax: metadata, dependencies, extras and the console script."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r"^__version__ = '(.+)'", (ROOT / 'rfn_jax/core/version.py').read_text(encoding='utf-8'), re.MULTILINE
)[1]

setuptools.setup(
    name='rfn_jax',
    version=VERSION,
    description='Surrogates trained in large flat neighborhoods (RFN / l-SAM) and the transfer of their adversarial '
    'examples, in JAX',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The rfn_jax authors',
    project_urls={'Paper': 'https://arxiv.org/abs/2304.02688'},
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='adversarial examples, transferability, sharpness-aware minimization, SAM, JAX, Flax, optax',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: MacOS',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    python_requires='>=3.11',
    # `rfn_jax/configs` is a symbolic link to `configs`, which is at the top level so that users find and edit it. With this
    # `package_dir`, an editable installation adds a path, so that `import rfn_jax` also works next to a clone of that name.
    packages=setuptools.find_packages(include=['rfn_jax', 'rfn_jax.*']),
    package_dir={'': '.'},
    package_data={
        'rfn_jax': ['py.typed'],
        'rfn_jax.attacks': ['README.md'],
        'rfn_jax.models': ['README.md', 'sizes.csv'],
        'rfn_jax.optim': ['README.md'],
        'rfn_jax.report': ['page.html.jinja'],
    },
    install_requires=[
        'absl-py',
        'array-record',
        'chex',
        'etils[epath]',
        'flax>=0.12',
        'grain>=0.2.15',
        'importlib_resources',  # tensorflow-datasets imports it and declares it only for old Pythons
        'jax>=0.8',
        'jinja2',
        'matplotlib',
        'ml-collections>=1.1',
        'numpy>=2',
        'optax>=0.2.5',
        'orbax-checkpoint>=0.11.30',
        'pillow',
        'rich',
        'markupsafe',
        'matfree>=0.6',
        'safetensors',
        'scipy',
        'scikit-learn',
        'tensorflow-datasets>=4.9.7',
    ],
    extras_require={
        'test': ['mypy', 'pytest>=8', 'pytest-timeout', 'pytest-xdist', 'ruff'],
        'tpu': ['jax[tpu]'],
        'cuda': ['jax[cuda12]'],
        'gcs': ['gcsfs'],  # work directories on gs://
    },
    entry_points={'console_scripts': ['rfn-jax = rfn_jax.cli.main:main']},
)
