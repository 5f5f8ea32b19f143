"""Cross-view geo-localization: a street photo and a prior in, a metric pose on the map out."""

__version__ = "0.1.0.dev0"
