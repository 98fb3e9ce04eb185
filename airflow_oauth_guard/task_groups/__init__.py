"""Functions that build the guard and flat-line graphs."""
