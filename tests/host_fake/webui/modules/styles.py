"""Prompt styles: name -> (name, prompt, negative prompt)."""

import csv
from pathlib import Path
from typing import NamedTuple


class PromptStyle(NamedTuple):
    name: str
    prompt: str | None
    negative_prompt: str | None
    path: str | None = None


def _merge(style, prompt):
    if "{prompt}" in style:
        return style.replace("{prompt}", prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)


class StyleDatabase:
    def __init__(self, paths):
        self.paths = paths
        self.no_style = PromptStyle("None", "", "", None)
        self.styles = {}
        self.reload()

    def reload(self):
        self.styles.clear()
        for path in self.paths:
            if Path(path).exists():
                with Path(path).open(encoding="utf-8-sig", newline="") as file:
                    for row in csv.DictReader(file):
                        style = PromptStyle(row["name"], row["prompt"], row["negative_prompt"])
                        self.styles[style.name] = style

    def apply_styles_to_prompt(self, prompt, styles):
        for name in styles:
            prompt = _merge(self.styles.get(name, self.no_style).prompt, prompt)
        return prompt

    def apply_negative_styles_to_prompt(self, prompt, styles):
        for name in styles:
            prompt = _merge(self.styles.get(name, self.no_style).negative_prompt, prompt)
        return prompt
