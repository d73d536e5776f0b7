"""The families of networks; each module adds its forms to the table of models."""
