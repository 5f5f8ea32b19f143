"""Published checkpoints, one module each: their names and layouts to our weights."""
