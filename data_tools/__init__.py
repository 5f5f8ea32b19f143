"""Geodata in: downloads, importers and other people's folder layouts; ends at the manifest."""
