"""Named attacks: compositions of components as plain functions, and the table of them.

Each function takes the options of its components, with their defaults, and those that all compositions share: `Shared`
for one step, `Iterative` for several. It returns the attack, and raises `InputError` where a value is out of its range.
"""
