"""Pure functions from runs to HTML and SVG; they know neither Gradio nor routes."""
