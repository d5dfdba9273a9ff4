"""What a process does once, before its UI opens."""

from modules import sd_models, sd_unet, sd_vae, shared
from modules.call_queue import wrap_queued_call


def initialize():
    import networks  # noqa: F401  (the built-in Lora extension)

    sd_models.list_models()
    sd_vae.refresh_vae_list()
    sd_unet.list_unets()
    reload = wrap_queued_call(lambda: sd_models.reload_model_weights())
    shared.opts.onchange("sd_model_checkpoint", reload, call=False)
    shared.opts.onchange("fp8_storage", reload, call=False)
    shared.opts.onchange(
        "cache_fp16_weight",
        wrap_queued_call(lambda: sd_models.reload_model_weights(forced_reload=True)),
        call=False,
    )
    shared.opts.onchange(
        "sd_vae", wrap_queued_call(lambda: sd_vae.reload_vae_weights()), call=False
    )
