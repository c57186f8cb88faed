"""Formats that a memory's training images are exported to and read from."""
