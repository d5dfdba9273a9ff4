"""Devices and number formats. The fake host has a CPU only."""

import contextlib

import torch

from modules.shared_cmd_options import cmd_opts

cpu = torch.device("cpu")
device = cpu
fp8 = False
force_fp16 = False
dtype = torch.float32 if cmd_opts.no_half else torch.float16
dtype_vae = torch.float32 if cmd_opts.no_half or cmd_opts.no_half_vae else torch.float16
dtype_unet = torch.float16
dtype_inference = dtype
unet_needs_upcast = False
gc_calls = 0


def torch_gc():
    global gc_calls
    gc_calls += 1


def get_optimal_device_name():
    return "cpu"


def get_optimal_device():
    return cpu


def get_device_for(task):
    return cpu


def autocast(disable=False):
    return contextlib.nullcontext()


def without_autocast(disable=False):
    return contextlib.nullcontext()


class NansException(Exception):  # noqa: N818 - the real name
    pass


def test_for_nans(x, where):
    """Look at the first number only, as the real one does."""
    if cmd_opts.disable_nan_check or not torch.isnan(x.flatten()[0]):
        return
    name = {"unet": "Unet", "vae": "VAE"}[where]
    raise NansException(f"A tensor with NaNs was produced in {name}.")
