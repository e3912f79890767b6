"""From differences to few sentences: combinations are folded into large boxes, and a box is read aloud.

Invariants:
- a sentence says what the box says: words left out are any, words listed are all there are;
- boxes of one step do not overlap and together are exactly the difference: each point is told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from broker.model import SHOWN
from broker.policy.boxes import Box, Space, fold
from broker.policy.compare.change import Area, Change, Direction
from broker.policy.compare.differences import Asker, Difference, Differences, Say, Step
from broker.policy.compare.domain import DAY, OTHER, Column, Domain
from broker.policy.decision import Policy
from broker.policy.rules import GROUP_PREFIX

MOST_LACKING = 2
"""Most fields of a class that a sentence names as excepted."""

_PHRASES = {
    "purpose": "{}",
    "relation": "{}",
    "ticket_kind": "{} ticket",
    "provenance": "{}",
    "opened_by": "opened by {}",
    "presence": "customer {}",
}
_GLOSSES = {
    ("relation", "none"): "without a relation to the ticket",
    ("provenance", "peer"): "handed over by a peer",
    ("provenance", "self"): "self-assigned",
    ("provenance", "unknown"): "of unknown provenance",
    ("opened_by", "unknown"): "somebody unknown",
    ("opened_by", "imported"): "an import",
    ("opened_by", "self"): "the agent",
    ("opened_by", "peer"): "a peer",
    ("opened_by", "customer"): "the customer",
    ("opened_by", "system"): "a system",
    ("ticket_kind", OTHER): "any other",
}


def tell(
    differences: Iterable[Difference], about: Differences, domain: Domain, new: Policy, say: Say
) -> Iterator[Change]:
    """Gives the changes of rules and groups."""
    grouped: dict[tuple[Area, Direction, Step], list[Difference]] = {}
    for difference in differences:
        grouped.setdefault((difference.area, difference.direction, difference.step), []).append(difference)
    for i, ((area, direction, step), found) in enumerate(grouped.items(), 1):
        say(f"Folding what was found, {i} of {len(grouped)}")
        askers = {_word(d.asker): d.asker for d in found}
        space, boxes = _boxes(found, about, domain)
        for box in boxes:
            who = [askers[word] for word in space.ordered(0, box.sides[0])]
            fields = space.ordered(1, box.sides[1])
            sides = [space.ordered(i, side) for i, side in enumerate(box.sides[2:], 2)]
            yield _change(
                area, direction, step, who, fields, dict(zip(domain.columns, sides, strict=True)), new
            )


def _boxes(found: Sequence[Difference], about: Differences, domain: Domain) -> tuple[Space, list[Box]]:
    """Writes the combinations of one step as boxes over askers, fields and facts."""
    points: dict[str, dict[str, int]] = {}
    for difference in found:
        of_asker = points.setdefault(_word(difference.asker), {})
        for field in about.fields[difference.shapes]:
            of_asker[field] = of_asker.get(field, 0) | difference.points
    concerned = {field for of_asker in points.values() for field in of_asker}
    fields = [field for alike in about.fields.values() for field in alike if field in concerned]
    space = Space(
        {"asker": tuple(points), "field": tuple(fields), **{c.name: c.words for c in domain.columns}}
    )
    whole = tuple(of_asker.get(field, 0) for of_asker in points.values() for field in fields)
    places = [{word: i for i, word in enumerate(words)} for words in space.words]

    def step(rest: tuple[int, ...], at: int, word: str) -> tuple[int, ...]:
        place = places[at][word]
        if at == 0:
            return rest[place * len(fields) : (place + 1) * len(fields)]
        if at == 1:
            return (rest[place],)
        stride = domain.strides[at - 2]
        return ((rest[0] >> (place * stride)) & ((1 << stride) - 1),)

    return space, fold(space, whole, step, any).get(True, [])


def _word(asker: Asker) -> str:
    return "+".join("|".join(unit.names) for unit in asker)


def _change(
    area: Area,
    direction: Direction,
    step: Step,
    who: Sequence[Asker],
    fields: Sequence[str],
    sides: dict[Column, list[str]],
    new: Policy,
) -> Change:
    before, now = SHOWN[step[0]], SHOWN[step[1]]
    facts = {c.name: list(c.spelt_out(side)) for c, side in sides.items() if len(side) < len(c.words)}
    told = [text for column, side in sides.items() if (text := _fact(column, side))]
    sentence = f"{', '.join((_who(area, who), *told))}: {_fields(fields, new)} {before} -> {now}"
    if direction is Direction.UNDECIDABLE:
        sentence += " (hangs on a fact that one side's model does not know)"
    return Change(
        direction,
        area,
        sentence,
        {
            "held_together": [[list(unit.names) for unit in asker] for asker in who],
            "fields": list(fields),
            "facts": facts,
            "old": before,
            "new": now,
        },
    )


def _who(area: Area, who: Sequence[Asker]) -> str:
    singles = [asker[0] for asker in who if len(asker) == 1]
    prefix = GROUP_PREFIX if area is Area.GROUPS else ""
    named = [prefix + name for unit in singles for name in unit.names]
    texts = [_or(named)] if named else []
    texts += [
        " together with ".join(_or([prefix + name for name in unit.names]) for unit in asker)
        for asker in who
        if len(asker) > 1
    ]
    return ("members of " if prefix else "") + "; or ".join(texts)


def _fact(column: Column, side: Sequence[str]) -> str:
    """Reads one side of a box aloud; nothing where it is any."""
    missing = [word for word in column.words if word not in side]
    if not missing:
        return ""
    if column.name == DAY:
        return _or(_spans(column.words, side))
    # Whatever is shorter: what there is, or what there is not.
    turned = len(column.spelt_out(missing)) < len(column.spelt_out(side))
    words = missing if turned else side
    if column.name != "ticket_kind":
        words = column.spelt_out(words)
    phrase = _PHRASES[column.name].format(_or([_GLOSSES.get((column.name, word), word) for word in words]))
    return f"not {phrase}" if turned else phrase


def _spans(spans: Sequence[str], side: Sequence[str]) -> list[str]:
    """Joins spans of days that follow one another: `from D to D` and `from D` are one `from D`."""
    texts: list[str] = []
    for before, span in zip(("", *spans), spans, strict=False):
        if span not in side:
            continue
        if before in side:
            begin = texts.pop().rpartition("to ")[0]
            texts.append((begin + span[span.index("to ") :]).strip() if "to " in span else begin.strip())
        else:
            texts.append(span)
    return texts


def _fields(fields: Sequence[str], new: Policy) -> str:
    """Names fields; where they are all that a class has, or nearly all, by the class."""
    left = list(fields)
    texts: list[str] = []
    for field_class in new.catalog.field_classes:
        members = [name for name, f in new.catalog.fields.items() if f.field_class == field_class]
        lacking = [name for name in members if name not in left]
        if len(lacking) <= MOST_LACKING and len(members) - len(lacking) > len(lacking) + 1:
            texts.append(f"all {field_class} fields" + (f" but {_or(lacking)}" if lacking else ""))
            left = [name for name in left if name not in members]
    return ", ".join([*texts, *left])


def _or(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
