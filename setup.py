"""Packaging of rfn_jax: metadata, dependencies, extras and the console script."""

import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent

setuptools.setup(
    name='rfn_jax',
    version='0.1.0',
    description='Surrogates trained in large flat neighbourhoods (RFN / l-SAM) and the transfer of their adversarial '
    'examples, in JAX',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    # `configs/` stays at the top level for people to edit; installed, it is the package `rfn_jax.configs`.
    packages=[*setuptools.find_packages(include=['rfn_jax', 'rfn_jax.*']), 'rfn_jax.configs'],
    package_dir={'rfn_jax.configs': 'configs'},
    package_data={
        'rfn_jax.attacks': ['README.md'],
        'rfn_jax.models': ['README.md', 'sizes.csv'],
        'rfn_jax.optim': ['README.md'],
        'rfn_jax.report': ['page.html.jinja'],
    },
    install_requires=[
        'absl-py',
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
        'safetensors',
        'scipy',
        'scikit-learn',
        'tensorflow-datasets>=4.9.7',
    ],
    extras_require={
        'test': ['pytest>=8', 'pytest-timeout', 'pytest-xdist', 'ruff'],
        'tpu': ['jax[tpu]'],
        'cuda': ['jax[cuda12]'],
        'gcs': ['gcsfs'],  # work directories on gs://
    },
    entry_points={'console_scripts': ['rfn-jax = rfn_jax.cli.main:main']},
)
