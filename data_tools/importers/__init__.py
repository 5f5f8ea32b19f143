"""One importer a published dataset: its folder in, a manifest out."""
