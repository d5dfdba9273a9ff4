from __future__ import annotations

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_automerge.domain.payload import Hires, Payload, named
from lib_automerge.errors import ConfigError
from lib_automerge.ui import payload_list, payload_sources
from lib_automerge.ui.fields import defaults
from lib_automerge.ui.payload_fields import PAYLOAD_FIELDS, SAME, payload_of, payload_values
from lib_automerge.ui.texts import payloads_of, payloads_text

INFO = (
    "a castle\nNegative prompt: bad\nSteps: 28, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 64x64"
)

EVERYTHING = Payload(
    prompt="a\nb",
    name="n",
    negative_prompt="c",
    seeds=(3, 1),
    steps=9,
    sampler="Euler a",
    scheduler="Karras",
    cfg_scale=4.5,
    width=640,
    height=768,
    clip_skip=2,
    batch_size=3,
    weight=0.25,
    held_out=True,
    score_prompt="d",
    hires=Hires(
        scale=1.25,
        upscaler="None",
        second_pass_steps=4,
        denoising_strength=0.5,
        resize_x=800,
        resize_y=960,
        sampler="DDIM",
        scheduler="Normal",
        prompt="e",
        negative_prompt="f",
    ),
    styles=("x", "y"),
    override_settings={"a": 1, "b": "c", "d": True, "e": 0.5},
)


@pytest.mark.parametrize(
    "payload", [EVERYTHING, Payload(prompt="x"), Payload(prompt="x", hires=Hires())]
)
def test_the_fields_hold_everything_of_a_payload(payload):
    values = payload_values(payload)
    assert set(values) == {field.name for field in PAYLOAD_FIELDS}
    assert payload_of(values) == payload
    assert payloads_of(payloads_text([payload, payload])) == (payload, payload)


def test_what_the_second_pass_leaves_open_has_a_name():
    values = payload_values(Payload(prompt="x", hires=Hires()))
    assert values["payload_hires_sampler"] == values["payload_hires_scheduler"] == SAME


def test_an_untouched_editor_describes_the_defaults():
    values = defaults(PAYLOAD_FIELDS) | {"payload_prompt": "x", "payload_sampler": "Euler a"}
    assert payload_of(values) == Payload(prompt="x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"payload_prompt": "  "}, "empty prompt"),
        ({"payload_steps": 0}, "steps is 0"),
        ({"payload_steps": None}, '"Sampling steps" is empty'),
        ({"payload_width": 513}, "multiple of 8"),
        ({"payload_seeds": "1, two"}, '"Seeds" are not whole numbers'),
        ({"payload_seeds": "-1"}, "cannot be compared"),
        ({"payload_weight": 0}, "weight is 0"),
        ({"payload_override_settings": "{"}, "override settings cannot be read"),
        ({"payload_override_settings": '{"sd_vae": "x"}'}, "sd_vae"),
        ({"payload_hires": True, "payload_hires_scale": 99}, "hires.scale is 99"),
    ],
)
def test_a_wrong_value_is_a_sentence(changes, words):
    with pytest.raises(ConfigError) as caught:
        payload_of(payload_values(Payload(prompt="x")) | changes)
    assert words in str(caught.value)


@pytest.fixture
def three():
    return named([Payload(prompt=p) for p in "abc"])


def test_adding_takes_the_next_free_name(three):
    payloads, name = payload_list.add(three, Payload(prompt="d"))
    assert name == "p04"
    assert [p.prompt for p in payloads] == ["a", "b", "c", "d"]
    payloads, name = payload_list.add(payloads[:1] + payloads[3:], Payload(prompt="e"))
    assert name == "p03"
    _, name = payload_list.add(three, Payload(prompt="d", name="p02"))
    assert name == "p02 (2)"


def test_replacing_keeps_the_place_and_the_name(three):
    payloads, name = payload_list.replace(three, "p02", Payload(prompt="B"))
    assert name == "p02"
    assert [p.prompt for p in payloads] == ["a", "B", "c"]
    payloads, name = payload_list.replace(three, "p02", Payload(prompt="B", name="new"))
    assert [p.name for p in payloads] == ["p01", "new", "p03"]
    with pytest.raises(ConfigError, match="two payloads have the name 'p03'"):
        payload_list.replace(three, "p02", Payload(prompt="B", name="p03"))
    with pytest.raises(ConfigError, match="no prompt 'nine'"):
        payload_list.replace(three, "nine", Payload(prompt="B"))


def test_removing_selects_the_neighbour(three):
    assert payload_list.remove(three, "p02")[1] == "p03"
    rest, name = payload_list.remove(three, "p03")
    assert (name, len(rest)) == ("p02", 2)
    assert payload_list.remove(three[:1], "p01") == ((), "")


def test_a_copy_follows_its_original(three):
    payloads, name = payload_list.duplicate(three, "p01")
    assert [p.name for p in payloads] == ["p01", name, "p02", "p03"]
    assert payloads[1].prompt == "a"


def test_the_count_is_that_of_the_search():
    payloads = [Payload(prompt="a"), Payload(prompt="b"), Payload(prompt="c", held_out=True)]
    told = payload_list.count_sentence(payloads, 3)
    assert told == ("Images per try: 6 (2 prompts x 3 seeds). Held out for the verdict: 1 prompt.")
    seeded = [Payload(prompt="a", seeds=(1, 2)), Payload(prompt="b")]
    assert "Images per try: 5 (2 prompts with their seeds)" in payload_list.count_sentence(
        seeded, 3
    )


def test_the_table_shows_text_as_text_and_marks_the_chosen():
    evil = '<img src=x onerror="alert(1)">'
    html = payload_list.table([Payload(prompt=evil, name=evil, held_out=True)], evil)
    assert "<img" not in html
    assert 'data-payload="&lt;img src=x onerror=&quot;alert(1)&quot;&gt;"' in html
    assert 'aria-pressed="true"' in html
    assert "held out" in html
    assert 'aria-pressed="false"' in payload_list.table([Payload(prompt="x", name="y")], "")


def test_an_image_tells_how_it_was_made(tmp_path):
    path = tmp_path / "a.png"
    info = PngInfo()
    info.add_text("parameters", INFO)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    (found,) = payload_sources.read(path)
    assert (found.prompt, found.steps, found.seeds, found.name) == ("a castle", 28, (3,), "")


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_so_do_jpeg_and_webp(tmp_path, order, ending):
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + INFO.encode(order)
    Image.new("RGB", (8, 8)).save(path, exif=exif.tobytes())
    (found,) = payload_sources.read(path)
    assert found.negative_prompt == "bad"


def test_json_is_a_set_or_a_list(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('[{"prompt": "one"}, {"prompt": "two", "held_out": true}]')
    assert [p.prompt for p in payload_sources.read(path)] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "not a payload set"),
        ("a.png", b"\x89PNG broken", "neither an image nor JSON"),
        ("a.txt", b"hello", "neither an image nor JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        payload_sources.read(path)


def test_an_image_without_text_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(ConfigError, match="does not say how it was made"):
        payload_sources.read(path)


def test_what_file_components_hold(tmp_path):
    class Temporary:
        name = str(tmp_path / "x.png")

    for held in (Temporary.name, Temporary(), [Temporary()], [Temporary.name]):
        assert payload_sources.path_of(held) == tmp_path / "x.png"
    assert payload_sources.path_of(None) is None
    assert payload_sources.path_of([]) is None
