"""Gradient estimates, and transformations that turn gradients into the directions of steps."""
