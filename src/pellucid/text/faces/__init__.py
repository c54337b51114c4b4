"""Tokenizers with methods of their own: what `TokenizerClass.face` names."""

from __future__ import annotations

from pellucid.text.faces.translation import MarianTokenizer, TranslationTokenizer
from pellucid.text.faces.whisper import WhisperTokenizer

Face = TranslationTokenizer | MarianTokenizer | WhisperTokenizer
FACES: dict[str, type[Face]] = {
    "translation": TranslationTokenizer,
    "marian": MarianTokenizer,
    "whisper": WhisperTokenizer,
}
