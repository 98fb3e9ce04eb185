"""Thin: read what came in, call the guard, say what happened, translate errors."""
