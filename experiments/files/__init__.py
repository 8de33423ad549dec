"""Writing of files: atomic replacement (`atomic`) and JSON without NaN (`strict_json`)."""

from experiments.files.atomic import naming, replace_bytes, replace_file, replace_text

__all__ = ["naming", "replace_bytes", "replace_file", "replace_text"]
