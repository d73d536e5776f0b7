"""`python -m rfn_jax` is `rfn-jax`."""

import sys

from rfn_jax.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
