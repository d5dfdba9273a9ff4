"""The JSON and HTML routes under /automerge/v1/: a thin layer over the desk."""
