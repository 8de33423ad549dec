"""Writing of files: atomic replacement (`atomic`), JSON without NaN (`strict_json`), and what a command made (`results`)."""

from experiments.files.atomic import naming, replace_bytes, replace_file, replace_text
from experiments.files.results import Results

__all__ = ["Results", "naming", "replace_bytes", "replace_file", "replace_text"]
