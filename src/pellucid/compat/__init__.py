"""The face that people know: names and arguments of transformers 4 and 5, over the layers below. No logic of its own."""
