"""The policy once more, by hand: a second opinion that shares no code with the broker or Casbin."""

import csv
import io

COLUMNS = (
    "role",
    "purpose",
    "relation",
    "ticket_kind",
    "provenance",
    "opened_by",
    "presence",
    "field",
    "level",
    "effect",
)


def parse(text):
    """Gives rules as dictionaries, the roles that roles include, and the roles of groups."""
    rules, includes, groups = [], {}, {}
    for row in csv.reader(io.StringIO(text), skipinitialspace=True):
        if not row or row[0].startswith("#"):
            continue
        if row[0] == "p":
            rules.append(dict(zip(COLUMNS, row[1:], strict=True)))
        elif row[1].startswith("idp:"):
            groups.setdefault(row[1][4:], set()).add(row[2])
        else:
            includes.setdefault(row[1], set()).add(row[2])
    return rules, includes, groups


def every_role(roles, includes):
    """Gives the roles and what they include."""
    wider = set(roles).union(*(includes.get(role, set()) for role in roles))
    return wider if wider == set(roles) else every_role(wider, includes)


def matches(rule, roles, facts, field, field_class, level):
    """Says whether a rule speaks of a request, word by word."""
    if rule["role"] != "any" and rule["role"] not in roles:
        return False
    for column, word in facts.items():
        if rule[column] not in {"any", word}:
            return False
    return rule["field"] in {"any", field, field_class} and rule["level"] in {"any", level}


def decide(rules, includes, roles, facts, field, field_class):
    """Gives "clear", "masked" or None."""
    wider = every_role(roles, includes)
    for level in ("clear", "masked"):
        effects = {rule["effect"] for rule in rules if matches(rule, wider, facts, field, field_class, level)}
        if effects == {"allow"}:
            return level
    return None
