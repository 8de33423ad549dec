"""Features of a style, one `STYLE` in each file of this folder: `edit --style_features=NAME`."""

from experiments.config.records import records
from experiments.editing.records import StyleFeatures

STYLES: dict[str, StyleFeatures] = records(__name__, __path__, "STYLE")
