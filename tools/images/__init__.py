"""Builds the images; see `build` in this folder."""
