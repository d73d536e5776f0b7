"""The foundation of all other subpackages: numerics, losses, random keys, registries, sharding, safe files, the console."""
