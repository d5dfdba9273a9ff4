"""What comes out of a generation: pictures with their settings, and a grid of them."""

import json

import numpy as np
import torch
from PIL import Image

from modules import images
from modules.shared import opts


class Processed:
    def __init__(
        self,
        p,
        images_list,
        seed=-1,
        info="",
        all_prompts=None,
        all_seeds=None,
        index_of_first_image=0,
        infotexts=None,
    ):
        self.images = images_list
        self.prompt = p.prompt
        self.negative_prompt = p.negative_prompt
        self.seed = seed
        self.info = info
        self.comments = "".join(f"{comment}\n" for comment in p.comments)
        self.width, self.height = p.width, p.height
        self.sampler_name = p.sampler_name
        self.steps, self.cfg_scale, self.batch_size = p.steps, p.cfg_scale, p.batch_size
        self.sd_model_name = p.sd_model_name
        self.sd_model_hash = p.sd_model_hash
        self.extra_generation_params = p.extra_generation_params
        self.index_of_first_image = index_of_first_image
        self.all_prompts = all_prompts or p.all_prompts
        self.all_negative_prompts = p.all_negative_prompts
        self.all_seeds = all_seeds or p.all_seeds
        self.all_subseeds = p.all_subseeds
        self.infotexts = infotexts or [info] * len(images_list)

    def js(self):
        return json.dumps(
            {"seed": self.seed, "all_seeds": self.all_seeds, "infotexts": self.infotexts}
        )


def create_infotext(p, index):
    first = [p.all_prompts[index]]
    if p.all_negative_prompts[index]:
        first.append(f"Negative prompt: {p.all_negative_prompts[index]}")
    skip = opts.CLIP_stop_at_last_layers
    fields = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler,
        "CFG scale": p.cfg_scale,
        "Seed": p.all_seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model hash": p.sd_model_hash if opts.add_model_hash_to_info else None,
        "Model": p.sd_model_name if opts.add_model_name_to_info else None,
        "Clip skip": skip if skip > 1 else None,
        **p.extra_generation_params,
        "Version": "v1.10.1" if opts.add_version_to_infotext else None,
    }
    line = ", ".join(f"{name}: {value}" for name, value in fields.items() if value is not None)
    return "\n".join([*first, line])


def pictures(decoded):
    """RGB images; in a batch of several a real host computes in another order: last bits differ."""
    scaled = (torch.clamp((decoded + 1) / 2, 0, 1) * 255).nan_to_num(0).numpy()
    pixels = np.moveaxis(scaled, 1, 3).astype(np.uint8)
    if len(pixels) > 1:
        pixels[:, 0, 0, 0] ^= (pixels[:, 0, 0, 0] > 1).astype(np.uint8)
    return [Image.fromarray(x) for x in pixels]


def add_grid(p, output, infotexts):
    wanted = (opts.return_grid or opts.grid_save) and not p.do_not_save_grid
    if not wanted or (len(output) < 2 and opts.grid_only_if_multiple):
        return 0
    grid = images.image_grid(output, p.batch_size)
    if opts.grid_save:
        folder = p.outpath_grids
        images.save_image(grid, folder, "grid", p.all_seeds[0])
    if not opts.return_grid:
        return 0
    infotexts.insert(0, infotexts[0])
    output.insert(0, grid)
    return 1
