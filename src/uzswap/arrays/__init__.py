"""numpy arrays whose pages come and go."""
