"""Recipes as other tools write them: what a text says, read and written, one module per tool.

A text becomes a `sketch.Sketch`: which models, which method, which weights, as far as the text says
so. `catalogue` knows the dialects by name and tells them apart. Nothing is guessed: what a text
leaves open is asked for, and what a recipe of ours cannot say is refused in words.
"""
