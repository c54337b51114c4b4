"""Texts -> a tokenizer: `train.py` is the way in."""
