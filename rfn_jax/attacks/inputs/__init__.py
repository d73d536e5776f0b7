"""Input transforms: changes to the images before the surrogate sees them."""
