"""Writing pictures, and laying them out in a grid."""

from pathlib import Path

from PIL import Image

saved: list[str] = []
"""Files written so far: of the fake alone."""


def image_grid(imgs, batch_size=1, rows=None):
    width, height = imgs[0].size
    grid = Image.new("RGB", (width * len(imgs), height))
    for number, image in enumerate(imgs):
        grid.paste(image, (number * width, 0))
    return grid


def save_image(image, path, basename, seed=None, prompt=None, extension="png", info=None, **kwargs):
    folder = Path(path)  # a TypeError for None, as with the real one
    folder.mkdir(parents=True, exist_ok=True)
    name = folder / f"{len(list(folder.iterdir())):05d}-{seed}.{extension}"
    image.save(name)
    saved.append(str(name))
    return str(name), None
