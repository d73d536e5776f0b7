"""Input transforms: what is done to the images before the surrogate sees them."""
