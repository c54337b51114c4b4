"""Pellucid: pretrained transformers, one line away, in a library that one person can read."""
