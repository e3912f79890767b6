"""Casbin gets the release's model and words that were understood; its own traps stay out of reach."""

import ast
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import casbin
import pytest

import broker.policy
from broker.policy import decision, load
from broker.policy.engine import MODEL_SHA256, Engine, subject
from broker.policy.rules import RuleBook
from tests.policy.sample import FACTS, TEXTS, edited, files, findings, small

CONDITIONS = tuple(FACTS.as_mapping().values())

SPOILT_MODELS = {
    # C5
    "a comment sign in the matcher": ("m = (", "m = (p.level == r.level) # && ("),
    "a semicolon in the matcher": ("m = (", "m = (p.level == r.level) ; ("),
    "a matcher on two lines": (" && (p.purpose", " \\\n && (p.purpose"),
    # C6
    "eval in the matcher": ("m = (", "m = eval(p.role) && ("),
    # C4
    "a bracket too many": ("m = (", "m = (("),
    # C8, C9
    "a regular expression": ("p.purpose == r.purpose", "regexMatch(r.purpose, p.purpose)"),
    "a pattern over ids": ("g2(r.field, p.field)", "keyMatch(r.field, p.field)"),
    # the rest of it
    "allow unless denied": ("some(where (p.eft == allow)) && !some", "!some"),
    "denials ignored": (" && !some(where (p.eft == deny))", ""),
    "a matcher that is true": ("m = (", "m = true || ("),
    "a space more": ("m = (", "m =  ("),
    "a comment changed": ("# The question", "# A question"),
    "nothing": (TEXTS["model.conf"], ""),
}  # fmt: skip


@pytest.mark.attack("C4", "C5", "C6", "C8", "C9")
@pytest.mark.parametrize(("old", "new"), SPOILT_MODELS.values(), ids=SPOILT_MODELS)
def test_any_other_model_is_refused(old, new):
    """The model is the release's to the last byte; what differs is never parsed, whatever it says."""
    small()  # the control arm

    assert [f for f in findings(edited("model.conf", old, new)) if f.endswith("[model-changed]")]


def test_model_has_no_functions_of_ours_and_no_eval():
    """The matcher uses ==, g and g2 alone, so any other Casbin decides the same."""
    matcher = next(line for line in TEXTS["model.conf"].splitlines() if line.startswith("m = "))
    for word in ("eval", "keyMatch", "regexMatch", "globMatch", "ipMatch"):
        assert word not in matcher

    assert len(MODEL_SHA256) == 64
    assert not {"#", ";", "*"} & set(matcher)


@pytest.mark.attack("C16", "C6")
def test_nothing_here_switches_casbin_off_or_reloads_it():
    """No module of the policy names what would allow everything or leave rules half loaded."""
    dangerous = {
        "add_function",
        "add_named_matching_func",
        "clear_policy",
        "enable_enforce",
        "eval",
        "exec",
        "load_filtered_policy",
        "set_effector",
    }
    folder = Path(broker.policy.__file__).parent
    named = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute | ast.Name)
    }

    assert named & dangerous == set()
    assert "enforce_ex" in named  # the control arm: calls are seen


def test_enforcer_without_rules_is_never_built():
    """With no rule Casbin would evaluate the matcher on blanks; there is no such enforcer."""
    with pytest.raises(ValueError, match="without rules"):
        Engine(TEXTS["model.conf"], RuleBook((), {}, {}), small().catalog, [])


def test_stock_casbin_gives_the_same_from_the_same_words():
    """The files decide alike in a Casbin that knows nothing of the broker, with the edges written out."""
    policy = small()
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=TEXTS["model.conf"]))
    for rule in policy.book.rules:
        enforcer.add_policy(*rule.words)
    for role, includes in policy.book.nesting.items():
        for included in includes:
            enforcer.add_grouping_policy(role, included)
    for field in policy.catalog.fields.values():
        enforcer.add_named_grouping_policy("g2", field.full_name, field.field_class)
    enforcer.add_grouping_policy("@tier1", "tier1")

    for field in policy.catalog.fields:
        levels = [
            level for level in ("clear", "masked") if enforcer.enforce("@tier1", *CONDITIONS, field, level)
        ]
        decided = policy.decide(frozenset({"tier1"}), FACTS, [field]).allowed.get(field)
        assert (levels[0] if levels else None) == decided


def test_role_set_is_one_subject():
    """A set of roles has one name, in any order, that no role can have."""
    assert subject(["tier2", "billing"]) == subject(["billing", "tier2"]) == "@billing+tier2"


@pytest.mark.attack("K8")
def test_role_name_as_subject_is_not_asked():
    """Stock `g` says that a name is itself a role of that name; the engine only ever asks about role sets."""
    engine = Engine(TEXTS["model.conf"], small().book, small().catalog, [frozenset({"tier1"})])
    request = (*CONDITIONS, "customer.name", "clear")

    assert engine.enforce(("tier1", *request))  # what Casbin does by itself
    assert engine.ask(frozenset({"tier1"}), CONDITIONS, "customer.name", "clear")[0]
    assert not engine.ask(frozenset(), CONDITIONS, "customer.name", "clear")[0]
    assert not engine.ask(frozenset({"@tier1"}), CONDITIONS, "customer.name", "clear")[0]


def test_files_are_checked_before_casbin_sees_them(monkeypatch):
    """No enforcer over the policy is made for files that have a finding."""
    made = []
    original = casbin.Enforcer.__init__

    def counted(self, *args, **kwargs):
        made.append(args)
        original(self, *args, **kwargs)

    monkeypatch.setattr(casbin.Enforcer, "__init__", counted)
    findings(files(policy_csv=TEXTS["policy.csv"].replace("deny", "Deny"), admin_csv="# end\n"))

    assert made == []
    small.__wrapped__()
    assert made


def test_loads_in_several_threads_take_turns():
    """Casbin's parser does not stand two threads; questions wait for each other, whoever asks them."""
    with ThreadPoolExecutor(4) as pool:
        policies = list(pool.map(lambda version: load(files(), str(version)), range(12)))

    assert [policy.version for policy in policies] == [str(i) for i in range(12)]


def test_a_policy_is_loaded_while_another_thread_compares_for_long(monkeypatch):
    """What comes into force waits for one question of another's comparison at most, not for its end."""
    comparing, go_on = threading.Event(), threading.Event()
    real = decision.verify

    def slowly(*args, **options):
        comparing.set()
        assert go_on.wait(30)
        return real(*args, **options)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(decision, "verify", slowly)
        long = pool.submit(load, files(), "long")
        try:
            assert comparing.wait(30)
            monkeypatch.setattr(decision, "verify", real)
            with ThreadPoolExecutor(1) as other:
                assert other.submit(load, files(), "short").result(timeout=20).version == "short"
        finally:
            go_on.set()

        assert long.result().version == "long"
