"""The foundation of all other rooms: numerics, losses, random keys, registries, sharding, safe files, the console."""
