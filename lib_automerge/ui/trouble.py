"""The tab in place of the tab, when something is wrong: what, what to do, and folded details.

Must work where everything else does not: it needs nothing but gradio.
"""

from __future__ import annotations

import html

import gradio as gr


def build(sentence: str, details: str = "") -> gr.Blocks:
    """A page with one sentence, and below it the details that help to find the cause."""
    folded = (
        f"<details><summary>Details</summary><pre>{html.escape(details)}</pre></details>"
        if details
        else ""
    )
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.HTML(
            f'<div class="automerge-trouble" role="alert"><p>{html.escape(sentence)}</p>{folded}'
            "</div>",
            elem_id="automerge_trouble",
        )
    return blocks
