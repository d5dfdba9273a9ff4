"""Scripts: the folder of the extension being loaded, and a runner without scripts."""

from modules.paths_internal import script_path

current_basedir = script_path


def basedir():
    """The extension's folder while its scripts are imported; the WebUI's own afterwards."""
    return current_basedir


class Script:
    def title(self):
        raise NotImplementedError


class ScriptRunner:
    def __init__(self):
        self.scripts = []
        self.alwayson_scripts = []
        self.selectable_scripts = []
        self.inputs = [None]
        self.ran = 0

    def setup_scrips(self, p, *, is_ui=True): ...

    def before_process(self, p):
        self.ran += 1


scripts_txt2img = ScriptRunner()
scripts_img2img = ScriptRunner()
