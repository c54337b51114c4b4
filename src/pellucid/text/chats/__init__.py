"""Messages -> a prompt: `prompt.py` is the way in. The way back, from what a model wrote, is `text/answers`."""
