"""Which strategy, and which reading, options ask for. Its module is imported then: most requests are plain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.engine.decoding import Decoding, Reading
from pellucid.engine.decoding.reading import AsItIs
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.engine.decoding.constraints import Constraint
    from pellucid.engine.options import GenerationConfig

METHODS = ("advance", "does_advance", "update", "reset", "remaining", "copy")  # of a constraint


def decodings(options: GenerationConfig) -> Decoding | None:
    """The strategy; None for one token after the other.

    Raises:
        ArgumentError: options of strategies that exclude each other.
    """
    o = options
    beams, alpha = o.num_beams, o.penalty_alpha
    bound = bool(o.constraints) or bool(o.force_words_ids)
    if alpha and o.top_k > 1:
        _exclude("penalty_alpha", alpha, do_sample=o.samples, num_beams=beams > 1, constraints=bound)
        from pellucid.engine.decoding.contrastive import Contrastive

        return Contrastive(alpha=alpha, top_k=o.top_k)
    if not bound and o.num_beam_groups <= 1 and beams <= 1:
        return None
    from pellucid.engine.decoding.beam import BeamSearch, Ranking

    ranking = Ranking(length_penalty=o.length_penalty, early_stopping=o.early_stopping)
    if bound:
        _exclude("constraints", "…", do_sample=o.samples, num_beam_groups=o.num_beam_groups > 1, num_beams=beams == 1)
        from pellucid.engine.decoding.constrained import ConstrainedBeamSearch

        return ConstrainedBeamSearch(beams=beams, constraints=constraints(o), ranking=ranking)
    if o.num_beam_groups > 1:
        _exclude("num_beam_groups", o.num_beam_groups, do_sample=o.samples)
        from pellucid.engine.decoding.diverse import DiverseBeamSearch

        ends = sorted(o.eos)
        filler = o.pad_token_id if o.pad_token_id is not None or not ends else ends[0]
        return DiverseBeamSearch(
            beams=beams, groups=o.num_beam_groups, penalty=o.diversity_penalty, ranking=ranking, filler=filler
        )  # fmt: skip
    return BeamSearch(beams=beams, ranking=ranking)


def reading(
    options: GenerationConfig, negative_prompt_ids: Sequence[int] | None = None, mask: Sequence[int] | None = None
) -> Reading | None:
    """How logits are made of what the model says; None for as they are.

    Args:
        negative_prompt_ids: of this row, for guidance; None for the prompt's last token.
        mask: 0 at those that do not count.

    Raises:
        ArgumentError: DoLa with a strategy that it does not go with; a negative prompt without tokens.
    """
    o, found = options, None
    if o.dola_layers is not None:
        contrastive = bool(o.penalty_alpha) and o.top_k > 1
        bound = bool(o.constraints) or bool(o.force_words_ids)
        _exclude("dola_layers", o.dola_layers, num_beams=o.num_beams > 1, penalty_alpha=contrastive, constraints=bound)
        from pellucid.engine.decoding.dola import Dola

        found = Dola(layers=o.dola_layers)
    if o.guidance_scale is None or o.guidance_scale == 1:
        return found
    from pellucid.engine.decoding.guidance import Guidance

    negative = _unmasked(negative_prompt_ids, mask)
    return Guidance(scale=o.guidance_scale, negative=negative, of=found or AsItIs())


def constraints(options: GenerationConfig) -> list[Constraint]:
    """The constraints that were given, and those of `force_words_ids`.

    Raises:
        ArgumentError: what is no constraint; a phrase that is none.
    """
    from pellucid.engine.decoding.constraints import OneOf, Phrase

    given: Iterable[Any] = options.constraints or ()
    given = [given] if _is_constraint(given) else list(given)
    for each in given:
        if not _is_constraint(each):
            what = f"a constraint is a {type(each).__name__}"
            advice = "use PhrasalConstraint, DisjunctiveConstraint, or your own Constraint"
            raise ArgumentError(what, where="constraints", next=advice)
    words = options.force_words_ids or ()
    return [*given, *(OneOf(word) if isinstance(word[0], (list, tuple)) else Phrase(word) for word in words)]


def _is_constraint(value: Any) -> bool:
    return all(callable(getattr(value, name, None)) for name in METHODS)


def _unmasked(ids: Sequence[int] | None, mask: Sequence[int] | None) -> tuple[int, ...]:
    if ids is None:
        return ()
    found = tuple(int(token) for token, real in zip(ids, [1] * len(ids) if mask is None else mask) if int(real))
    if not found:
        what = "the negative prompt has no tokens"
        raise ArgumentError(what, where="negative_prompt_ids", next="give one token at least, or leave it out")
    return found


def _exclude(name: str, value: object, **others: bool) -> None:
    """Refuses an option beside any of those that are on."""
    other = next((other for other, on in others.items() if on), None)
    if other is not None:
        raise ArgumentError(f"{name}={value} with {other}", where=name, next="use one of them")
