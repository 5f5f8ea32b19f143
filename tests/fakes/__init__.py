"""Generators of small made-up files in other people's layouts."""
