"""Models of older releases: compared by their own words, never served, and never guessed at."""

import re

import pytest

from broker.errors import PolicyInvalidError
from broker.policy import load
from broker.policy.compare import Direction, Side, compare
from broker.policy.decision import load_known
from broker.policy.models import KNOWN, model_hash
from broker.policy.rules import CONDITIONS
from tests.policy.sample import TEXTS, files
from tests.policy.test_compare_sentences import sentences

LOST = ("opened_by", "presence")


def older(rules):
    """Gives files of a release that knew neither opened_by nor presence, and the known models."""
    model = TEXTS["model.conf"]
    for name in LOST:
        model = model.replace(f" {name},", "").replace(f' && (p.{name} == "any" || p.{name} == r.{name})', "")
    assert not any(name in model.partition("[request")[2] for name in LOST), "the control arm"
    columns = tuple(name for name in CONDITIONS if name not in LOST)
    known = {**KNOWN, model_hash(model): columns}
    return files(model_conf=model, policy_csv=rules), known


OLD_RULES = """\
g, idp:front, tier1
p, tier1, resolve, assignee, any, routed, profile, clear, allow
p, tier1, resolve, assignee, any, routed, contact, masked, allow
# end
"""
OLDER = older(OLD_RULES)


class TestModels:
    """Sides of different releases."""

    def test_older_model_serves_nobody(self):
        """What can be compared cannot be loaded to decide."""
        old, known = older(OLD_RULES)

        load_known(old, "old", known)  # the control arm
        with pytest.raises(PolicyInvalidError, match="model-changed"):
            load(old, "old")

    def test_unknown_model_is_refused_with_what_to_do(self):
        """A model that no release here had is named by its hash."""
        old, _ = older(OLD_RULES)

        with pytest.raises(PolicyInvalidError) as refused:
            load_known(old, "old")
        [finding] = [f for f in refused.value.findings if f.startswith("model.conf")]
        assert re.fullmatch(
            r"model\.conf:1: no release known here has a model with sha256 [0-9a-f]{64}; "
            r"put back the model\.conf of .* \[model-unknown\]",
            finding,
        )

    def test_older_rules_decide_as_their_own_model_does(self):
        """The older policy's table is held against stock Casbin with the older model, and agrees."""
        old, known = older(OLD_RULES)

        loaded = load_known(old, "old", known, thorough=True)

        assert loaded.verification.startswith("table equals Casbin at all ")
        assert loaded.book.columns == ("purpose", "relation", "ticket_kind", "provenance")

    def test_what_hangs_on_an_unknown_fact_is_undecidable(self):
        """Where the new rule asks for presence, what the old release's decisions become is not guessed."""
        old, known = older(OLD_RULES)
        new_rules = """\
g, idp:front, tier1
p, tier1, resolve, assignee, any, routed, any, any, profile, masked, allow
p, tier1, resolve, assignee, any, routed, any, present, contact, clear, allow
p, tier1, resolve, assignee, any, routed, any, absent, contact, masked, allow
# end
"""
        before, after = Side.of_files("old", old, known).policy, load(files(policy_csv=new_rules), "2")
        comparison = compare(before, after)

        step = "all contact fields masked -> clear"
        hangs = " (hangs on a fact that one side's model does not know)"
        assert [(c.direction, c.sentence) for c in comparison.changes] == [
            (
                Direction.UNDECIDABLE,
                f"tier1, resolve, assignee, routed, customer present: {step}{hangs}",
            ),
            (
                Direction.NARROWING,
                "tier1, resolve, assignee, routed: all profile fields clear -> masked",
            ),
        ]
        assert comparison.widens
        assert comparison.narrows

    def test_unknown_fact_that_decides_nothing_is_no_doubt(self):
        """Where all values of the fact go one way, it is a plain widening; where nothing changes, nothing."""
        old, known = older(OLD_RULES)
        new_rules = """\
g, idp:front, tier1
p, tier1, resolve, assignee, any, routed, any, any, profile, clear, allow
p, tier1, resolve, assignee, any, routed, any, any, contact, clear, allow
# end
"""
        before, after = Side.of_files("old", old, known).policy, load(files(policy_csv=new_rules), "2")

        assert sentences(before, after) == [
            "tier1, resolve, assignee, routed: all contact fields masked -> clear"
        ]
