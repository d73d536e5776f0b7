"""What every other room stands on: numerics, losses, random keys, registries, sharding, safe files, the console."""
