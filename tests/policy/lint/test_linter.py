"""One report over all files, whatever they hold; each finding says what to do."""

import ast
import json
import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import broker.policy
from broker.errors import PolicyInvalidError
from broker.policy import PolicyFiles
from broker.policy.files import MAX_BYTES
from broker.policy.findings import Finding, Severity
from broker.policy.lint import LintReport, lint
from broker.policy.lint.hints import HINTS
from broker.policy.lint.sarif import as_sarif
from broker.policy.rules import COLUMNS, MAX_RULES
from tests.policy.sample import CATALOG, POLICIES, RULES, TEXTS, edited, files

TODAY = date(2026, 11, 25)
STARTING = PolicyFiles.from_directory(POLICIES)


def named(policy, **options):
    """Gives file, line and name of what is found."""
    return {(f.file, f.line, f.name) for f in lint(policy, today=TODAY, **options).findings}


def test_starting_policy_is_clean_and_says_what_it_accepts():
    """No error, no open warning; money in clear with the customer away is accepted four times in writing."""
    report = lint(STARTING, today=TODAY)

    assert (report.errors, report.warnings) == ((), ())
    assert [found.name for found in report.accepted] == ["sensitive-clear"] * 4
    assert all("card numbers" in found.accepted for found in report.accepted)
    assert {found.name for found in report.notes} == {"precaution"}


def test_readers_of_all_files_are_heard_at_once():
    """One report names what is wrong in the model, the rules, the catalog, the limits and the admin file."""
    policy = PolicyFiles.from_mapping(
        {
            "admin.csv": TEXTS["admin.csv"].replace("allow", "Allow"),
            "catalog.yaml": CATALOG,
            "limits.yaml": TEXTS["limits.yaml"].replace("tier1", "teir1"),
            "model.conf": TEXTS["model.conf"].replace("m = (", "m = eval(p.role) && ("),
            "policy.csv": RULES.replace("p, tier1, resolve", "p, tier1, resolv"),
        }
    )
    found = {(file, name) for file, _, name in named(policy)}

    assert found >= {
        ("admin.csv", "unknown-effect"),
        ("model.conf", "model-call"),
        ("policy.csv", "unknown-purpose"),
    }
    report = lint(edited("limits.yaml", "tier1", "teir1"), today=TODAY)
    assert [(f.file, f.line, f.name) for f in report.errors] == [("limits.yaml", 4, "unknown-role")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(MAX_BYTES)),
    st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda b: b.decode("latin-1"))),
    st.integers(0, 2000),
)
def test_whatever_the_files_hold_there_is_a_report(name, junk, at):
    """Junk in the middle of any file is a finding, never an exception."""
    text = TEXTS[name]
    policy = PolicyFiles.from_mapping({**TEXTS, name: text[: at % len(text)] + junk})

    report = lint(policy, today=TODAY)
    assert isinstance(report, LintReport)
    json.dumps(report.as_mapping())
    json.dumps(as_sarif(report, "policies"))


@pytest.mark.attack("X9", "C18")
def test_a_million_lines_and_a_hundred_megabytes_are_refused_unread(tmp_path):
    """The caps hold before anything is parsed: by bytes on disk, by lines in memory."""
    rule = RULES.splitlines()[5] + "\n"
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, "utf-8")
    PolicyFiles.from_directory(tmp_path)  # the control arm
    (tmp_path / "policy.csv").write_bytes(b"")
    with (tmp_path / "policy.csv").open("r+b") as file:
        file.truncate(100 * 1024 * 1024)
    with pytest.raises(PolicyInvalidError, match="too-large"):
        PolicyFiles.from_directory(tmp_path)

    short = files(policy_csv="\n" * 1_000_000 + "# end\n")
    assert ("policy.csv", 30_001, "too-many-lines") in named(short)
    many = "".join(rule.replace("profile", f"p{n}") for n in range(MAX_RULES + 1))
    assert ("policy", 1, "too-many") in named(files(policy_csv=many + "# end\n"))


class TestCatalog:
    """The catalog against itself and the rules."""

    def test_contact_that_is_not_sensitive_is_an_error(self):
        """A class with an e-mail address or a telephone number is sensitive, or it is refused."""
        assert ("catalog.yaml", 6, "contact-not-sensitive") in named(
            edited("catalog.yaml", ", sensitive: true", "")
        )
        masked_as_text = CATALOG.replace(", sensitive: true", "").replace("mask: email", "mask: text")
        assert ("catalog.yaml", 1, "nothing-sensitive") in named(
            files(catalog_yaml=masked_as_text.replace("mask: phone", "mask: text"))
        )

    def test_purpose_and_field_that_nobody_can_use(self):
        """A purpose without an allow is a warning, a field that no rule shows a note."""
        assert ("catalog.yaml", 3, "purpose-unused") in named(files())
        rules = "\n".join(line for line in RULES.splitlines() if "contact, masked" not in line) + "\n"
        rules = rules.replace("contact, clear", "customer.email, clear")
        assert ("catalog.yaml", 6, "field-unused") in named(files(policy_csv=rules))


class TestAdmin:
    """The admin file against itself and the release."""

    METHODS = ("/broker.v1.TicketFeedService/PublishEvents",)

    def test_methods_of_the_release_need_a_row(self):
        """An RPC without a row is an error, a row without an RPC a warning; the control arm has neither."""
        assert not [f for f in named(files(), methods=self.METHODS) if f[0] == "admin.csv"]
        assert ("admin.csv", 1, "method-missing") in named(
            files(), methods=(*self.METHODS, "/broker.v1.TicketFeedService/SendHeartbeat")
        )
        assert ("admin.csv", 2, "unknown-method") in named(
            edited("admin.csv", "PublishEvents", "PublishEvent"), methods=self.METHODS
        )

    def test_a_denial_that_denies_nothing_is_an_error(self):
        """A misspelt method or role in a denial is refused with the nearest word; in an allow it is told."""
        row = "p, helpdesk-feed, /broker.v1.TicketFeedService/PublishEvents, allow\n"
        spoilt = {
            "unknown-method": row.replace("PublishEvents, allow", "PublishEvent, deny"),
            "role-without-members": row.replace("helpdesk-feed", "helpdesk-fed").replace("allow", "deny"),
        }
        for name, denial in spoilt.items():
            report = lint(edited("admin.csv", row, row + denial), today=TODAY, methods=self.METHODS)
            [error] = report.errors
            assert (error.file, error.line, error.name) == ("admin.csv", 3, name)
            assert "did you mean" in error.sentence
            allow = denial.replace("deny", "allow")
            milder = lint(edited("admin.csv", row, row + allow), today=TODAY, methods=self.METHODS)
            assert not milder.errors
            assert name in {found.name for found in milder.warnings}

    def test_a_missing_row_is_ready_to_be_pasted(self):
        """The hint has the row for each role that may call others of the service; with it none is missing."""
        methods = (*self.METHODS, "/broker.v1.TicketFeedService/SendHeartbeat", "/broker.v1.New/Method")
        hints = [f.hint for f in lint(files(), methods=methods, today=TODAY).errors]
        [row] = [row for hint in hints for row in hint.splitlines()[1:]]

        assert "<role>" in hints[0]  # nobody can know
        assert row == f"p, helpdesk-feed, {methods[1]}, allow"
        pasted = edited("admin.csv", "# end", f"{row}\n# end")
        assert not [f for f in named(pasted, methods=methods[:2]) if f[0] == "admin.csv"]

    def test_rows_that_do_nothing(self):
        """An allow that a denial takes away, and a role that nobody has."""
        row = "p, helpdesk-feed, /broker.v1.TicketFeedService/PublishEvents, allow\n"
        twice = named(edited("admin.csv", row, row + row.replace("allow", "deny")))
        nobody = named(edited("admin.csv", row, row + row.replace("helpdesk-feed", "nobody")))

        assert ("admin.csv", 3, "shadowed-rule") in twice
        of_admin = edited("admin.csv", row, row + row.replace("allow", "deny"))
        [hint] = [f.hint for f in lint(of_admin, today=TODAY).findings if f.name == "shadowed-rule"]
        assert "accept" not in hint, "nothing can be accepted in admin.csv"
        assert ("admin.csv", 3, "role-without-members") in nobody


class TestFinding:
    """One form for people, one for programs."""

    @given(
        st.from_regex(r"[a-z]{1,8}\.(csv|yaml)", fullmatch=True),
        st.integers(1, 9999),
        st.from_regex(r"[a-z-]{1,20}", fullmatch=True),
        st.text(max_size=60),
    )
    def test_text_is_read_back(self, file, line, name, sentence):
        """What an error carries as text is the finding it was."""
        finding = Finding(file, line, name, sentence)

        assert Finding.parse(finding.text) == finding

    def test_other_texts_are_sentences(self):
        """A text of another form is kept whole."""
        assert Finding.parse("the database is away").sentence == "the database is away"
        assert Finding.parse("policy: more than 100 findings; the rest was not read [too-many]").line == 1

    def test_names_are_known_and_say_what_to_do(self):
        """Each name that the code of the policy gives a finding has a hint, and no hint is for nothing."""
        source = [p.read_text("utf-8") for p in Path(broker.policy.__file__).parent.rglob("*.py")]
        names = {f"unknown-{column.replace('_', '-')}" for column in COLUMNS}
        for text in source:
            names |= set(re.findall(r"\[([a-z][a-z-]+)\]\"", text))
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                    names |= set(_names(node))
        unknown = {name for name in names - HINTS.keys() if "{" not in name}

        assert unknown == set()
        assert len(names & HINTS.keys()) > 60


def _names(call):
    """Gives the name of a finding from a call that adds one."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
    at = {"add": 2, "refuse": 0, "Finding": 2, "_add": 1}.get(function)
    if at is None or len(call.args) <= max(at, 1):
        return
    node = call.args[at]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


class TestSarif:
    """SARIF 2.1.0, by the parts of its schema that are used here."""

    def test_log_has_what_the_schema_asks_for(self):
        """Version, tool, rules and results fit each other; places are relative, lines count from 1."""
        report = lint(edited("policy.csv", "p, tier1, resolve", "p, teir1, resolve"), today=TODAY)
        log = as_sarif(report, "a folder/policies")
        (run,) = log["runs"]

        assert (set(log), log["version"]) == ({"$schema", "version", "runs"}, "2.1.0")
        assert set(run) == {"tool", "columnKind", "results"}
        assert run["columnKind"] in {"utf16CodeUnits", "unicodeCodePoints"}
        rules = run["tool"]["driver"]["rules"]
        assert len({rule["id"] for rule in rules}) == len(rules) > 0
        assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in rules)
        assert len(run["results"]) == len(report.findings)
        for result, found in zip(run["results"], report.findings, strict=True):
            assert result["ruleId"] == rules[result["ruleIndex"]]["id"] == found.name
            assert result["level"] in {"none", "note", "warning", "error"}
            assert result["message"]["text"]
            (location,) = result["locations"]
            place = location["physicalLocation"]
            assert place["region"]["startLine"] == found.line >= 1
            assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", place["artifactLocation"]["uri"])

    def test_what_is_accepted_is_suppressed_with_its_reason(self):
        """A reviewer sees the warning as accepted in the source, and why."""
        (run,) = as_sarif(lint(STARTING, today=TODAY), "policies")["runs"]
        suppressed = [result for result in run["results"] if "suppressions" in result]

        assert {result["level"] for result in suppressed} == {Severity.WARNING.value}
        assert all(
            set(each) == {"kind", "status", "justification"}
            and (each["kind"], each["status"]) == ("inSource", "accepted")
            for result in suppressed
            for each in result["suppressions"]
        )
        assert len(suppressed) == 4
