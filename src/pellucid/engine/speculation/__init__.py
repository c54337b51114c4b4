"""Speculation: tokens are guessed, and the model confirms several in one step. What it says stays the same.

    PromptLookup, SuffixLookup    from the text itself                                       lookup.py, suffixes.py
    DraftModel                    from a smaller model                                       draft.py
    OtherTokenizer                from a smaller model with another tokenizer                universal.py
    EarlyExit                     from the model's own first blocks                          draft.py, early.py
    ForcedTokens                  from a grammar that leaves no choice                       forced.py
    FirstOf                       from the first of several that has a guess                 forced.py
    pace.py                       how much to guess
    options.py                    from the reference's arguments

A guess that was not drawn is right where the line would have chosen that token anyway: ids are the same with and
without speculation, sampled ones too. One that was drawn is judged by the rejection rule of arXiv 2211.17192.
"""

from pellucid.engine.speculation.draft import DraftModel as DraftModel
from pellucid.engine.speculation.draft import EarlyExit as EarlyExit
from pellucid.engine.speculation.draft import Habits as Habits
from pellucid.engine.speculation.forced import FirstOf as FirstOf
from pellucid.engine.speculation.forced import ForcedTokens as ForcedTokens
from pellucid.engine.speculation.lookup import Earlier as Earlier
from pellucid.engine.speculation.lookup import PromptLookup as PromptLookup
from pellucid.engine.speculation.lookup import SuffixLookup as SuffixLookup
from pellucid.engine.speculation.options import speculation as speculation
from pellucid.engine.speculation.universal import OtherTokenizer as OtherTokenizer
