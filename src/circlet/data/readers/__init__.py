"""Readers of public data sets, a file for each format."""
