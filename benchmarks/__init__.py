"""Timings against published formulations: one command, one table."""
