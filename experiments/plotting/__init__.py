"""Plotting: PNG grids and contact sheets, SVG curves, HTML pages."""
