"""Modules built from specs. Every value worth looking at passes through a tap; shapes are packed, `[N, …]`."""
