"""What a process reads from its command line."""

from pathlib import Path

from modules.shared_cmd_options import cmd_opts


def get_gradio_auth_creds():
    """Yield (name, password) of `--gradio-auth` and `--gradio-auth-path`."""
    texts = [cmd_opts.gradio_auth or ""]
    if cmd_opts.gradio_auth_path:
        texts += Path(cmd_opts.gradio_auth_path).read_text("utf-8").splitlines()
    for pair in ",".join(texts).split(","):
        if pair.strip():
            yield tuple(pair.strip().split(":", 1))
