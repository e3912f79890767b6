"""The lint says what differs in the model, and where; the hash refuses it in any case."""

from datetime import date

import pytest

from broker.policy.findings import Findings
from broker.policy.lint import lint
from broker.policy.lint.model import DEFINITIONS, PARTS, check_words
from tests.policy.sample import TEXTS, edited

MODEL = TEXTS["model.conf"]
TODAY = date(2026, 11, 25)
SECTION = "[matchers]"
MATCHER = next(line for line in MODEL.splitlines() if line.startswith("m = "))
AT = MODEL.splitlines().index(MATCHER) + 1

SPOILT = {
    # C6: what would evaluate code
    "eval": ("m = (", "m = eval(p.role) && (", "model-call", "'eval', which runs text as code"),
    "exec": ("m = (", "m = exec(p.role) && (", "model-call", "'exec', which runs text as code"),
    "an import": ("m = (", 'm = __import__("os") && (', "model-call", "'__import__'"),
    "a dunder": ("r.purpose)", "r.purpose.__class__)", "model-word", "'r.purpose.__class__'"),
    "a lambda": ("m = (", "m = (lambda: x)() && (", "model-word", "'lambda'"),
    # C8, C9: patterns
    "a regex": ("p.purpose == r.purpose", "regexMatch(r.purpose, p.purpose)", "model-call", "hours"),
    "keyMatch": ("g2(r.field, p.field)", "keyMatch(r.field, p.field)", "model-call", "a pattern"),
    "keyMatch5": ("g2(r.field, p.field)", "keyMatch5(r.field, p.field)", "model-call", "a pattern"),
    "globMatch": ("g2(r.field, p.field)", "globMatch(r.field, p.field)", "model-call", "a pattern"),
    "ipMatch": ("g2(r.field, p.field)", "ipMatch(r.field, p.field)", "model-call", "addresses"),
    "a function of one's own": ("m = (", "m = trusted(r.sub) && (", "model-call", "'trusted'; it may call g"),
    # what loops or does not end
    "a loop": ("m = (", "m = (x for x in p.role) && (", "model-word", "'for'"),
    "a power": ("m = (", "m = 9**9**9 && (", "model-operator", "'9**9**9'"),
    "a long string": ("m = (", "m = 'a'*10**9 && (", "model-operator", "10**9"),
    "a comparison that is true": ("m = (", "m = 1 == 1 || (", "model-operator", "'1'"),
    "true": ("m = (", "m = true || (", "model-word", "'true'"),
    "negation": ("m = (", "m = !(", "model-operator", "'!'"),
    "another constant": ('"any" || p.level', '"all" || p.level', "model-operator", "'\"'"),
    "another attribute": ("r.purpose)", "r.owner)", "model-word", "'r.owner'"),
    # C5, C4
    "a comment sign": ("m = (", "m = (p.level == r.level) # && (", "model-comment", "a comment sign #"),
    "a semicolon": ("m = (", "m = (p.level == r.level) ; (", "model-comment", "a comment sign ;"),
    "a bracket too many": ("m = (", "m = ((", "model-bracket", "do not match"),
    "brackets the wrong way": ("m = (", "m = )( && (", "model-bracket", "do not match"),
    # parts
    "a part less": (' && (p.presence == "any" || p.presence == r.presence)', "", "model-matcher", "lacks"),
    "a part more": ("m = (", "m = (p.role == p.role) && (", "model-matcher", "a part of its own"),
    "or for and": (" && (p.purpose", " || (p.purpose", "model-matcher", "lacks"),
}  # fmt: skip


@pytest.mark.attack("C4", "C5", "C6", "C8", "C9")
@pytest.mark.parametrize(("old", "new", "name", "said"), SPOILT.values(), ids=SPOILT)
def test_what_the_matcher_must_not_do_is_named(old, new, name, said):
    """A matcher that calls, loops or compares otherwise is refused with its line and the word."""
    assert old in MODEL
    report = lint(edited("model.conf", old, new), today=TODAY)

    named = [found for found in report.errors if found.name == name]
    assert named, report.findings
    assert all(found.line == AT and found.hint for found in named)
    assert any(said in found.sentence for found in named)
    assert "model-changed" in {found.name for found in report.errors}


SECTIONS = {
    "an unknown section": (SECTION, "[extra]\nx = 1\n\n[matchers]", "model-section", "'[extra]'"),
    "a misspelt section": (SECTION, "[matcher]", "model-section", "did you mean 'matchers'?"),
    "no matcher": (MATCHER, "", "model-missing", "'m = …' is missing in section [matchers]"),
    "a second matcher": (MATCHER, f"{MATCHER}\nm2 = {MATCHER[4:]}", "model-key", "no key 'm2'"),
    "the matcher twice": (MATCHER, f"{MATCHER}\n{MATCHER}", "model-key", "twice"),
    "a second policy type": ("g = _, _", "g = _, _\ng3 = _, _", "model-key", "no key 'g3'"),
    "a request with more": ("r = sub,", "r = sub, owner,", "model-definition", "'r' is"),
    "rules in another order": ("p = role, purpose", "p = purpose, role", "model-definition", "'p' is"),
    "roles with a domain": ("g = _, _", "g = _, _, _", "model-definition", "'g' is"),
    "allow unless denied": ("some(where (p.eft == allow)) && !some", "!some", "model-definition", "'e' is"),
    "a line of prose": (SECTION, "allow everything\n[matchers]", "model-line", "'allow everything'"),
    "a value that goes on": ("g = _, _", "g = _, \\\n_", "model-continuation", "next line"),
    "a carriage return": ("g = _, _", "g = _, _\r", "carriage-return", "carriage return"),
    "a byte order mark": ("# The question", "\ufeff# The question", "byte-order-mark", "byte order mark"),
    "a NUL": ("g = _, _", "g = _, _\0", "nul", "NUL"),
    "a very long line": ("m = (", f"m = {'(' * 9000}(", "line-too-long", "longer than"),
}  # fmt: skip


@pytest.mark.attack("C3", "C5")
@pytest.mark.parametrize(("old", "new", "name", "said"), SECTIONS.values(), ids=SECTIONS)
def test_what_the_model_must_not_hold_is_named(old, new, name, said):
    """Unknown and missing sections, keys and definitions are told one by one."""
    assert old in MODEL
    found = lint(edited("model.conf", old, new), today=TODAY).errors

    assert any(each.name == name and said in each.sentence for each in found), found


def test_the_release_s_model_is_the_one_described_here():
    """The control arm: not a word of the release's model is found wrong, and each part of it is known."""
    findings = Findings()
    check_words(MODEL, findings)

    assert list(findings) == []
    assert set(MATCHER.removeprefix("m = ").split(" && ")) == PARTS
    assert all(f"[{section}]" in MODEL for section in DEFINITIONS)


def test_comment_changed_is_told_by_the_hash_alone():
    """What the words do not show, the hash does."""
    report = lint(edited("model.conf", "# The question", "# A question"), today=TODAY)

    assert [found.name for found in report.errors] == ["model-changed"]
