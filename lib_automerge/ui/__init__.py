"""The tab: a form of plain Gradio components, beside views that the routes fill."""
