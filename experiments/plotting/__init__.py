"""Parts of pictures and pages: PNG grids, curves, HTML."""
