"""Casbin: the only semantics of the policy, built from checked rules and a pinned model.

Invariants:
- the model is the release's: a file with any other hash never reaches Casbin;
- an enforcer is built whole and never loaded again, filtered or switched off;
- it sees only words that the strict readers let through, and at least one rule;
- an agent is a set of roles: one synthetic subject, joined by `g` to each of them, so that one
  enforce sees all roles and a denial for any of them wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import Lock

from casbin import Enforcer, Model
from casbin.persist import Adapter

from broker.catalog import Catalog
from broker.policy.rules import CONDITIONS, Rule, RuleBook

MODEL_SHA256 = "9bee5fb277079232b73ea91a4209286c97d961fbbd05123d94c52f6679cedf70"
"""Hash of the `model.conf` of this release."""


PARSING = Lock()
"""Held for one question to Casbin. It parses its matcher at every one, and `ast.parse` in two threads at once
dies in CPython 3.11 ("AST constructor recursion depth mismatch"). Not held for longer: a policy that comes
into force waits for no comparison that another thread is at."""


class _Words(Adapter):  # type: ignore[misc] # casbin has no types
    """Hands Casbin lists of words, so that no line is cut into words a second time, by other rules."""

    def __init__(self, sections: Mapping[str, Sequence[tuple[str, ...]]]) -> None:
        self._sections = sections

    def load_policy(self, model: Model) -> None:
        for key, lines in self._sections.items():
            model[key[0]][key].policy.extend(list(words) for words in lines)


def words_adapter(sections: Mapping[str, Sequence[tuple[str, ...]]]) -> Adapter:
    """Makes the adapter that fills a model from words, by `p`, `g` and `g2`."""
    return _Words(sections)


def subject(roles: Iterable[str]) -> str:
    """Names a set of roles as Casbin's subject; `@` and `+` cannot occur in a role's name."""
    return "@" + "+".join(sorted(roles))


class Engine:
    """A stock enforcer over one rule book, for the role sets named at its making."""

    def __init__(
        self, model: str, book: RuleBook, catalog: Catalog, role_sets: Iterable[frozenset[str]]
    ) -> None:
        """Builds the enforcer: rules, nested roles, role sets, and each field's class from the catalog."""
        if not book.rules:  # with no rule at all Casbin evaluates the matcher on blanks
            raise ValueError("an enforcer without rules is never built")
        g = [(role, included) for role, to in book.nesting.items() for included in sorted(to)]
        g += [(subject(roles), role) for roles in role_sets for role in sorted(roles)]
        g2 = [(field.full_name, field.field_class) for field in catalog.fields.values()]
        self._places = tuple(CONDITIONS.index(name) for name in book.columns)
        p = {(rule.role, *self._known(rule.conditions), *rule.words[-3:]): rule for rule in book.rules}
        self._rules: Mapping[tuple[str, ...], Rule] = p
        self._enforcer = Enforcer(
            Enforcer.new_model(text=model), words_adapter({"p": list(p), "g": g, "g2": g2})
        )

    def ask(
        self, roles: frozenset[str], conditions: tuple[str, ...], field: str, level: str
    ) -> tuple[bool, Rule | None]:
        """Asks Casbin one question; gives its answer and the rule that it names for it.

        An allow without a rule is no allow.
        """
        with PARSING:
            allowed, words = self._enforcer.enforce_ex(subject(roles), *self._known(conditions), field, level)
        rule = self._rules.get(tuple(words))
        return (allowed is True and rule is not None), rule

    def _known(self, conditions: tuple[str, ...]) -> tuple[str, ...]:
        """Gives the conditions that the model knows, in its order."""
        return tuple([conditions[place] for place in self._places])

    def enforce(self, request: tuple[str, ...]) -> bool:
        """Asks as any program would ask stock Casbin; for measurements."""
        with PARSING:
            return bool(self._enforcer.enforce(*request))
