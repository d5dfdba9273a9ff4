from __future__ import annotations

import torch

from lib_automerge.demo import drawing, latents
from lib_automerge.demo.drawing import COLOURS, SCENES, SUBJECTS, Attributes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_same_seed_gives_the_same_pictures_and_another_seed_others() -> None:
    attributes = drawing.random_attributes(4, generator())
    first = drawing.draw(attributes, generator(1))
    assert torch.equal(first, drawing.draw(attributes, generator(1)))
    assert not torch.equal(first, drawing.draw(attributes, generator(2)))


def test_pictures_are_in_range() -> None:
    pictures = drawing.draw(drawing.random_attributes(32, generator()), generator(1))
    assert pictures.shape == (32, 3, 64, 64)
    assert -1 <= pictures.min() < -0.5 < 0.5 < pictures.max() <= 1


def test_a_ball_has_its_colour_in_the_middle() -> None:
    for index, name in enumerate(COLOURS):
        one = torch.tensor([index])
        picture = drawing.draw(Attributes(torch.tensor([0]), one, torch.tensor([0])), generator())
        red, green, blue = picture[0, :, 28:36, 30:38].mean(dim=(1, 2)).tolist()
        expected = {
            "red": red > max(green, blue) + 0.8,
            "green": green > max(red, blue) + 0.4,
            "blue": blue > max(red, green) + 0.4,
            "yellow": min(red, green) > blue + 0.8,
            "purple": min(red, blue) > green + 0.3,
            "white": min(red, green, blue) > 0.3,
        }
        assert expected[name], (name, red, green, blue)


def test_captions_name_what_the_picture_shows() -> None:
    attributes = drawing.random_attributes(200, generator())
    complete = 0
    for index, text in enumerate(drawing.captions(attributes, generator(1))):
        named = drawing.named_attributes(text)
        truth = {
            "subject": SUBJECTS[attributes.subject[index]],
            "colour": COLOURS[attributes.colour[index]],
            "scene": SCENES[attributes.scene[index]],
        }
        assert named.items() <= truth.items()
        complete += named == truth
    assert 150 < complete < 200


def test_latents_have_spread_one_and_tell_colours_apart() -> None:
    basis = latents.fit(seed=5)
    attributes = drawing.random_attributes(256, generator(6))
    found = basis.latents(drawing.draw(attributes, generator(7)))
    assert found.shape == (256, 4, 8, 8)
    assert torch.allclose(found.std(dim=(0, 2, 3)), torch.ones(4), atol=0.1)
    middle = found[:, :3, 3:5, 3:5].mean(dim=(2, 3))
    centres = torch.stack([middle[attributes.colour == i].mean(0) for i in range(len(COLOURS))])
    nearest = torch.cdist(middle, centres).argmin(1)
    assert (nearest == attributes.colour).float().mean() > 0.8
