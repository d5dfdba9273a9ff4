"""Generators: turn a recipe and image jobs into images."""
