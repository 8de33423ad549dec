"""File output: atomic replacement (`atomic`), JSON without NaN (`strict_json`), results of commands (`results`)."""

from experiments.files.atomic import naming, replace_bytes, replace_file, replace_text
from experiments.files.results import Results

__all__ = ["Results", "naming", "replace_bytes", "replace_file", "replace_text"]
