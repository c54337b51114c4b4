"""The face that people know: names and arguments of transformers, over the layers below. No logic of its own."""
