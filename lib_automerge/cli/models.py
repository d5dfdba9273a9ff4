"""The commands that look at checkpoints and change their components."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from lib_automerge.cli.parts import Commands, command, component_options, print_json
from lib_automerge.errors import ConfigError
from lib_automerge.run_commands import DONE


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    inspect = command(
        commands, "inspect", _inspect, "describe checkpoints side by side, and compare two"
    )
    inspect.add_argument("files", type=Path, nargs="+", metavar="FILE")
    inspect.add_argument("--json", action="store_true")
    inspect.add_argument(
        "--svg",
        type=Path,
        metavar="FILE",
        help="draw the blocks: sizes of one model, distances of two, or the weights of --recipe",
    )
    inspect.add_argument("--recipe", type=Path, help="whose weights --svg shows")

    edit = command(
        commands, "edit", _edit, "write a copy of a checkpoint with other components or precision"
    )
    edit.add_argument("file", type=Path)
    edit.add_argument("-o", "--output", type=Path, required=True)
    component_options(edit)
    precisions = ("fp16", "bf16", "fp32")
    edit.add_argument("--dtype", choices=precisions, help="store everything so")
    edit.add_argument("--dtype-denoiser", choices=precisions, help="the UNet or transformer")
    edit.add_argument("--dtype-text-encoder", choices=precisions)
    edit.add_argument("--dtype-vae", choices=precisions)

    distance = command(
        commands, "distance", _distance, "measure how far the models of a pool are apart"
    )
    distance.add_argument("files", type=Path, nargs="+", metavar="FILE")
    distance.add_argument("--base", type=Path, help="the model that the others were trained from")
    distance.add_argument("--json", action="store_true")
    distance.add_argument(
        "--svg", type=Path, metavar="DIR", help="draw tree.svg, map.svg and pairs.svg there"
    )
    distance.add_argument(
        "--sample", type=int, metavar="K", help="draw K of the files at random first"
    )
    distance.add_argument("--seed", type=int, default=0, help="of --sample; default: 0")


def _inspect(options: argparse.Namespace) -> int:
    from lib_automerge import model_commands
    from lib_automerge.merge import inspection

    if options.recipe is not None and options.svg is None:
        raise ConfigError("--recipe says what --svg shows. Give --svg FILE as well.")
    described = [inspection.inspect(path) for path in options.files]
    comparison = inspection.compare(*options.files) if len(options.files) == 2 else None
    if options.svg is not None:
        drawing = model_commands.inspect_drawing(described, comparison, options.recipe)
        model_commands.write_new(options.svg, drawing)
    if options.json:
        print_json({"files": described, "comparison": comparison})
    else:
        print(model_commands.inspect_text(described, comparison))
    return DONE


def _edit(options: argparse.Namespace) -> int:
    from lib_automerge.lab_commands import edits_of
    from lib_automerge.merge.edits import edit_file
    from lib_automerge.merge.surgery import COMPONENTS

    asked = {part: getattr(options, f"dtype_{part}") or options.dtype for part in COMPONENTS}
    dtypes = {part: name for part, name in asked.items() if name}
    edits = msgspec.structs.replace(edits_of(options), dtypes=dtypes)
    done = edit_file(options.file, options.output, edits)
    for sentence in done.told:
        print(sentence)
    print(done.path)
    return DONE


def _distance(options: argparse.Namespace) -> int:
    from lib_automerge import model_commands
    from lib_automerge.merge import pool, pool_text

    files = pool.without(options.files, options.base)
    if options.sample is not None:
        files = pool.sampled(files, options.sample, options.seed)
    with model_commands.drawings_of_pool(options.svg) as drawings:
        found = pool.pool_distances(files, base=options.base, progress=model_commands.read_so_far())
        for path, draw in drawings.items():
            model_commands.write_new(path, draw(found))
    if options.json:
        print_json(pool_text.pool_data(found))
        return DONE
    if options.sample is not None:
        print(f"{len(files)} of {len(options.files)} files, drawn with seed {options.seed}:")
    print(pool_text.format_pool(found))
    return DONE
