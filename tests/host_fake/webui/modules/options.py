"""Settings: a dictionary of what was set, over a table of what can be set."""

import json
from pathlib import Path

from modules import errors
from modules.shared_cmd_options import cmd_opts


class OptionInfo:
    def __init__(
        self,
        default=None,
        label="",
        component=None,
        component_args=None,
        onchange=None,
        section=None,
        refresh=None,
        comment_before="",
        comment_after="",
        infotext=None,
        restrict_api=False,
        category_id=None,
    ):
        self.default = default
        self.label = label
        self.component = component
        self.component_args = component_args
        self.onchange = onchange
        self.section = section
        self.refresh = refresh
        self.comment_before = comment_before
        self.comment_after = comment_after
        self.infotext = infotext
        self.restrict_api = restrict_api
        self.category_id = category_id
        self.do_not_save = False

    def info(self, text):
        self.comment_after += f"<span class='info'>({text})</span>"
        return self

    def html(self, text):
        self.comment_after += text
        return self

    def link(self, label, url):
        self.comment_before += f"[<a href='{url}' target='_blank'>{label}</a>]"
        return self

    def needs_restart(self):
        return self.html(" <span class='info'>(requires restart)</span>")

    def needs_reload_ui(self):
        return self.html(" <span class='info'>(requires Reload UI)</span>")


class OptionHTML(OptionInfo):
    def __init__(self, text):
        super().__init__(text.strip(), "", None)
        self.do_not_save = True


def options_section(section_identifier, options_dict):
    for info in options_dict.values():
        info.section = section_identifier[:2]
        if len(section_identifier) > 2:
            info.category_id = section_identifier[2]
    return options_dict


class Options:
    """`data` holds what config.json held and what was set since; the rest are defaults."""

    def __init__(self, data_labels, restricted_opts):
        own = {"data_labels": data_labels, "restricted_opts": restricted_opts, "data": {}}
        self.__dict__.update(own)

    def __getattr__(self, key):
        if key in self.data:
            return self.data[key]
        if key in self.data_labels:
            return self.data_labels[key].default
        raise AttributeError(key)

    def __setattr__(self, key, value):
        if key in self.__dict__ or (key not in self.data and key not in self.data_labels):
            self.__dict__[key] = value
            return
        if cmd_opts.freeze_settings:
            raise AssertionError("changing settings is disabled")
        if not self.data_labels[key].do_not_save:
            self.data[key] = value

    def set(self, key, value, is_api=False, run_callbacks=True):
        before = self.data.get(key)
        if before == value:
            return False
        info = self.data_labels[key]
        if info.do_not_save or (is_api and info.restrict_api):
            return False
        setattr(self, key, value)
        if run_callbacks and info.onchange is not None:
            try:
                info.onchange()
            except Exception as error:
                errors.display(error, f"changing setting {key} to {value}")
                setattr(self, key, before)
                return False
        return True

    def get_default(self, key):
        info = self.data_labels.get(key)
        return info.default if info else None

    def onchange(self, key, func, call=True):
        self.data_labels[key].onchange = func
        if call:
            func()

    def add_option(self, key, info):
        self.data_labels[key] = info
        if not info.do_not_save:
            self.data.setdefault(key, info.default)

    def load(self, filename):
        try:
            with Path(filename).open(encoding="utf8") as file:
                self.data = json.load(file)
        except FileNotFoundError:
            self.data = {}

    def save(self, filename):
        with Path(filename).open("w", encoding="utf8") as file:
            json.dump(self.data, file, indent=4)
