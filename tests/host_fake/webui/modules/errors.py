"""Reports that the WebUI would print; kept so that a test can read them."""

reported: list[str] = []


def report(message: str, *, exc_info: bool = False) -> None:
    reported.append(message)


def display(e: Exception, task: str, *, full_traceback: bool = False) -> None:
    reported.append(f"{task}: {type(e).__name__}: {e}")
