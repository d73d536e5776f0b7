"""Named attacks: compositions of components as plain functions, and the table that lists them.

Each function takes the options of its components, with their defaults, and the options that all compositions share:
`Shared` for attacks of one step, `Iterative` for attacks of several. It returns the attack, and raises `InputError` if a
value is out of range.
"""
