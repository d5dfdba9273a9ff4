"""Writing pictures, and laying them out in a grid."""

import os

from PIL import Image

from modules import shared

saved: list[str] = []
"""Files written so far: of the fake alone."""


def image_grid(imgs, batch_size=1, rows=None):
    width, height = imgs[0].size
    grid = Image.new("RGB", (width * len(imgs), height))
    for number, image in enumerate(imgs):
        grid.paste(image, (number * width, 0))
    return grid


def save_image(image, path, basename, seed=None, prompt=None, extension="png", info=None, **kwargs):
    folder = path if os.path.isabs(path) else os.path.join(shared.data_path, path)
    os.makedirs(folder, exist_ok=True)
    name = os.path.join(folder, f"{len(os.listdir(folder)):05d}-{seed}.{extension}")
    image.save(name)
    saved.append(name)
    return name, None
