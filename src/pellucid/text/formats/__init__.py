"""Vocabulary files -> a Rust `tokenizers.Tokenizer`; one module a format, each with `build`."""
