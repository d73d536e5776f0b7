"""Named attacks: compositions of components as plain functions, and the table of them."""
