"""The decode loop: one step over a ragged batch with a cache, and what chooses and stops tokens."""
