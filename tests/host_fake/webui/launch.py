"""What a process of the WebUI calls `launch`."""


def git_tag() -> str:
    return "v1.10.1"
