"""Which tokens belong to which sequence, and what a model keeps of a sequence between calls."""
