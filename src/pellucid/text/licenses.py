"""What licences say about commercial use: a table of the hub's identifiers, and no legal advice.

Identifiers: https://huggingface.co/docs/hub/repositories-licenses. What a row says is read off the licence's own text
(spdx.org/licenses for those with an SPDX name, the publisher's page for the others), in November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pellucid.text.card import Card

Level = Literal["allowed", "conditions", "forbidden", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """Whether a licence allows commercial use, and what else it says."""

    level: Level
    why: str


PERMISSIVE = "keep its notice"
COPYLEFT = "what is derived and passed on has the same licence"
NETWORK = "the same, also for who offers it as a service over a network"
USES = "a list of uses is forbidden, and is passed on with the model"
NON_COMMERCIAL = "non-commercial use only"
RESEARCH = "research only"

LICENSES: dict[str, Verdict] = {}
for names, level, why in (
    ("apache-2.0 mit bsd bsd-2-clause bsd-3-clause isc zlib ncsa postgresql bsl-1.0 ecl-2.0 afl-3.0 ms-pl artistic-2.0 "
     "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cdla-permissive-1.0 cdla-permissive-2.0 odc-by ofl-1.1",
     "allowed", PERMISSIVE),
    ("unlicense wtfpl cc0-1.0 pddl", "allowed", "nothing is asked for"),
    ("bsd-3-clause-clear", "allowed", f"{PERMISSIVE}; no patent is granted"),
    ("gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr mpl-2.0 epl-1.0 epl-2.0 gfdl osl-3.0 cc-by-sa-3.0 "
     "cc-by-sa-4.0 odbl cdla-sharing-1.0", "conditions", COPYLEFT),
    ("agpl-3.0 eupl-1.1 eupl-1.2", "conditions", NETWORK),
    ("cc-by-nd-4.0", "conditions", "nothing that is changed may be passed on"),
    ("openrail openrail++ creativeml-openrail-m bigscience-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m",
     "conditions", USES),
    ("llama2 llama3 llama3.1 llama3.2 llama3.3 llama4", "conditions",
     "a licence from Meta above 700 million monthly users; names, notices, and a list of forbidden uses"),
    ("gemma", "conditions", "Google's terms: a list of forbidden uses, passed on with the model"),
    ("cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nc-nd-3.0 "
     "cc-by-nc-nd-4.0 fair-noncommercial-research-license", "forbidden", NON_COMMERCIAL),
    ("intel-research apple-amlr deepfloyd-if-license", "forbidden", RESEARCH),
):  # fmt: skip
    LICENSES |= {name: Verdict(level, why) for name in names.split()}  # type: ignore[arg-type]  # a Level


def for_commercial_use(card: Card | None) -> Verdict:
    """What a card's licence says about commercial use."""
    if card is None:
        return Verdict("unknown", "there is no model card")
    if not card.license:
        return Verdict("unknown", "the card names no licence: nobody is allowed anything by it")
    found = LICENSES.get(card.license.lower())
    if found is not None:
        return found
    name = card.license_name or card.license
    return Verdict(
        "unknown", f"the licence {name!r} is not in the table" + (f": {card.license_link}" if card.license_link else "")
    )
