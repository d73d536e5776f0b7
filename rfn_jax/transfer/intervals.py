"""Confidence intervals of success rates."""

import numpy as np

CONFIDENCE = 0.95


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion.

    Args:
      successes: Number of successes, 0 to `n`.
      n: Number of trials, at least 1.

    Returns:
      `(low, high)`, in [0, 1].

    References:
      Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    import scipy.stats  # takes a second to import

    interval = scipy.stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method='wilson')
    return float(interval.low), float(interval.high)


def bootstrap_mean(values: np.ndarray, *, resamples: int = 10_000) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of a table, by a bootstrap that resamples its rows and its columns.

    Rows are seeds and columns are images: both are samples, and every image is attacked from every seed, so the cells are
    not independent, and an interval for the pooled proportion would be too narrow. If there is only one row, only the columns
    are resampled. The draws are the same in every call, so that tables of the same shape are compared on the same resamples.

    Args:
      values: Array `[seeds, images]`.
      resamples: Number of resamples.

    Returns:
      `(low, high)`.

    References:
      Owen, The Pigeonhole Bootstrap, Annals of Applied Statistics 2007.
    """
    rows, columns = values.shape
    generator = np.random.Generator(np.random.PCG64(0))
    row_weights = generator.multinomial(rows, np.full(rows, 1 / rows), size=resamples) / rows
    column_weights = generator.multinomial(columns, np.full(columns, 1 / columns), size=resamples) / columns
    means = np.sum((row_weights @ values) * column_weights, axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
