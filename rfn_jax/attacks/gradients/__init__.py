"""Estimates of the gradient, and what turns gradients into directions of steps."""
