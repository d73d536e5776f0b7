"""The results of a run for people to read: tables in the terminal, plots, and one HTML page. Reads results, never models."""

from rfn_jax.report.page import write_page
from rfn_jax.report.tables import print_tables

__all__ = ['print_tables', 'write_page']
