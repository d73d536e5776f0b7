"""The families of networks; each module adds its networks to the registry of models."""
