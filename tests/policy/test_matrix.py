"""The access matrix is exact: what it prints, read back, is what Casbin decides at every point."""

import csv
import io
import json
import random
import re
from dataclasses import replace
from hashlib import sha256
from itertools import combinations, count, product

import casbin
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.cli import run
from broker.policy import PolicyFiles, load
from broker.policy.engine import words_adapter
from broker.policy.everywhere import ADD_UP, PAIRS_DIFFER, default_role_sets, space_of
from broker.policy.matrix import as_csv, as_html, as_mapping, as_text, matrix
from broker.policy.matrix.text import names_of
from tests.policy import matrix_reader, naive
from tests.policy.random_policies import CATALOG, nestings, policy_of, rules
from tests.policy.sample import POLICIES, RULES, TEXTS, small

STARTING = load(PolicyFiles.from_directory(POLICIES), "1")
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


def stock(policy, role_sets):
    """Builds a stock enforcer of a policy; a set of roles is the subject `a+b`."""
    g = [(role, included) for role, to in policy.book.nesting.items() for included in to]
    g += [("@" + "+".join(sorted(roles)), role) for roles in role_sets for role in roles]
    g2 = [(name, field.field_class) for name, field in policy.catalog.fields.items()]
    p = [rule.words for rule in policy.book.rules]
    model = casbin.Enforcer.new_model(text=TEXTS["model.conf"])
    return casbin.Enforcer(model, words_adapter({"p": p, "g": g, "g2": g2}))


def casbin_level(enforcer, roles, point):
    """Asks for clear, then for masked, as the model says."""
    *facts, field = point
    subject = "@" + "+".join(sorted(roles))
    return next(
        (level for level in ("clear", "masked") if enforcer.enforce(subject, *facts, field, level)),
        "withheld",
    )


def table_answer(policy, roles, point):
    """Gives the level and the rule of the compiled table."""
    *facts, field = point
    level, rule = policy.table.outcome(policy.table.ground(roles, facts), field)
    return (str(level) if level else "withheld"), rule


def assert_exact(policy, points):
    """Reads the printed matrix back and holds it against the table at points, or at all of them."""
    sections, legend = matrix_reader.read(as_text(matrix(policy), golden=True), policy.catalog)
    lines = {", ".join(rule.words): rule for rule in policy.book.rules}
    for roles, rows in sections.items():
        answers = matrix_reader.unfold(rows)
        for point in points:
            level, rule = table_answer(policy, roles, point)
            told, by = answers.get(point, ("withheld", []))
            assert (roles, point, level) == (roles, point, told)
            if rule is not None:
                # Of the rules that the row names, the first that speaks of the point decides.
                named = sorted((lines[legend[name.split(" ")[0]]] for name in by), key=lambda each: each.line)
                assert rule == next(each for each in named if speaks_of(policy, each, point))


def speaks_of(policy, rule, point):
    """Says whether a rule's words are those of a point, but for its role and level."""
    *facts, field = point
    return rule.field in {"any", field, policy.catalog.fields[field].field_class} and all(
        word in {"any", fact} for word, fact in zip(rule.conditions, facts, strict=True)
    )


class TestExact:
    @settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
    @given(lines=rules, nesting=nestings, seed=st.integers(0, 2**32))
    def test_printed_rows_are_the_policy_at_every_point(self, lines, nesting, seed):
        """For any policy: every point, unfolded from the text, has its level and its rule; Casbin agrees."""
        policy = policy_of(lines, nesting)
        points = list(product(*space_of(CATALOG).words))

        assert_exact(policy, points)

        role_sets = default_role_sets(policy)
        enforcer = stock(policy, role_sets)
        sections, _ = matrix_reader.read(as_text(matrix(policy)), CATALOG)
        near = [point for rows in sections.values() for point in edges(rows, random.Random(seed))]
        for point in near[:60] + random.Random(seed).sample(points, 20):
            for roles in role_sets:
                told = matrix_reader.level_at(sections[roles], point[:-1], point[-1])
                assert told == casbin_level(enforcer, roles, point)

    def test_purposes_that_differ_in_the_level_alone_stay_apart(self):
        """Purposes share rows only where they show the same, not where their boxes happen to be alike."""
        everything = ["any"] * 5
        lines = [
            ("tier1", "resolve", *everything, "profile", "clear", "allow"),
            ("tier1", "review", *everything, "profile", "masked", "allow"),
        ]

        assert_exact(policy_of(lines, {}), list(product(*space_of(CATALOG).words)))

    def test_starting_policy_at_every_point(self):
        """The starting policy's matrix, read back, is the table at every one of its points."""
        space = space_of(STARTING.catalog)
        points = list(product(*space.words))

        assert len(points) == space.whole.size == 158_400
        assert_exact(STARTING, points)

    def test_starting_policy_against_stock_casbin(self):
        """In every row, just past it and anywhere, a stock enforcer gives the level that is printed."""
        rng = random.Random(20261125)
        sections, _ = matrix_reader.read(as_text(matrix(STARTING)), STARTING.catalog)
        enforcer = stock(STARTING, sections)
        everywhere = space_of(STARTING.catalog).words
        asked = 0
        for roles, rows in sections.items():
            anywhere = [tuple(rng.choice(words) for words in everywhere) for _ in range(100)]
            for point in [*edges(rows, rng), *anywhere]:
                told = matrix_reader.level_at(rows, point[:-1], point[-1])
                assert told == casbin_level(enforcer, roles, point), (roles, point)
                asked += 1
        assert asked > 800

    def test_wrong_row_would_be_noticed(self):
        """The control arm: a row that says one word too much is not the policy any more."""
        text = as_text(matrix(small()), golden=True)
        wrong = text.replace("routed", "routed, peer", 1)

        sections, _ = matrix_reader.read(wrong, small().catalog)
        points = list(product(*space_of(small().catalog).words))

        assert wrong != text
        assert any(
            matrix_reader.level_at(rows, point[:-1], point[-1]) != table_answer(small(), roles, point)[0]
            for roles, rows in sections.items()
            for point in points
        )


def edges(rows, rng):
    """Gives, for each row, a point in it and some that differ from it in one word."""
    for _, sides, _ in rows:
        point = [rng.choice(sorted(words)) for words in sides]
        yield tuple(point)
        for at in range(len(point)):
            words = [sorted(other[at]) for _, other, _ in rows]
            yield (*point[:at], rng.choice(rng.choice(words)), *point[at + 1 :])


class TestRoleSets:
    def test_pairs_of_the_starting_policy_add_up(self):
        """No role's denial takes from another role: the roles alone say it all, and the matrix says so."""
        made = matrix(STARTING)

        assert [sorted(*section.role_sets) for section in made.sections] == [
            ["billing"],
            ["supervisor"],
            ["tier1"],
            ["tier2"],
        ]
        assert made.note == ADD_UP

    def test_pair_that_loses_something_is_listed(self):
        """A denial for one role makes its pair with another a row of its own."""
        denial = "p, tier2, any, any, billing, any, any, any, customer.name, any, deny"
        policy = small(policy_csv=RULES.replace("g, tier2, tier1\n", "").replace("# end", f"{denial}\n# end"))
        made = matrix(policy)

        assert made.note == PAIRS_DIFFER
        assert frozenset({"tier1", "tier2"}) in [roles for each in made.sections for roles in each.role_sets]

    @settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
    @given(lines=rules, nesting=nestings, seed=st.integers(0, 2**32))
    def test_sets_that_are_not_listed_add_up(self, lines, nesting, seed):
        """Whatever pair is not listed, and every set where none is, sees the higher of what its roles see."""
        policy = policy_of([w for w in lines if w[-2:] != ("masked", "deny")] or lines[:1], nesting)
        if any(rule.words[-2:] == ("masked", "deny") for rule in policy.book.rules):
            return  # the reader refuses a denial of masked alone
        listed = default_role_sets(policy)
        roles = sorted(policy.book.mapped_roles)
        sets = [frozenset(pair) for pair in combinations(roles, 2)]
        if all(len(each) == 1 for each in listed):
            sets.append(frozenset(roles))
        rank = ["withheld", "masked", "clear"]
        for point in random.Random(seed).sample(list(product(*space_of(CATALOG).words)), 300):
            for each in sets:
                alone = max((table_answer(policy, {role}, point)[0] for role in each), key=rank.index)
                if each not in listed:
                    assert table_answer(policy, each, point)[0] == alone

    def test_asked_for(self):
        """Sets that are asked for are shown, alike ones together."""
        tier2, both = frozenset({"tier2"}), frozenset({"tier1", "tier2"})
        made = matrix(STARTING, [tier2, both])

        assert [section.role_sets for section in made.sections] == [(tier2, both)]


class TestForms:
    def test_csv_unfolds_to_the_same(self):
        """The CSV has the same points, levels and rules as the text."""
        made = matrix(STARTING)
        sections, _ = matrix_reader.read(as_text(made), STARTING.catalog)
        rows = list(csv.DictReader(io.StringIO(as_csv(made))))
        space = made.space
        for roles, expected in sections.items():
            mine = [
                (
                    row["level"],
                    [
                        set(words if row[name] == "any" else row[name].split(" "))
                        for name, words in zip(space.names, space.words, strict=True)
                    ],
                    row["rules"],
                )
                for row in rows
                if row["roles"] == "+".join(sorted(roles))
            ]
            assert [row[:2] for row in mine] == [row[:2] for row in expected]
        assert all(re.fullmatch(r"[a-z]", cell[0]) for row in rows for cell in row.values())

    def test_json_holds_the_rows(self):
        """The JSON form is plain and has every row with its rules."""
        made = matrix(STARTING)
        data = json.loads(json.dumps(as_mapping(made)))

        assert [len(section["rows"]) for section in data["sections"]] == [
            len(section.rows) for section in made.sections
        ]
        row = data["sections"][2]["rows"][0]
        assert row["level"] == "clear"
        assert row["rules"][0]["place"].startswith("policy.csv:")

    def test_page_is_whole_and_loads_nothing(self):
        """The page has every row with the words that its filters look at, and no address in it."""
        made = matrix(STARTING)
        page = as_html(made)
        data = [dict(re.findall(r'data-(\w+)="([^"]*)"', row)) for row in re.findall("<tr[^>]*>", page)]
        expected = [
            {"level": str(row.level or "withheld"), "roles": "+".join(sorted(*section.role_sets))}
            | {
                name: " ".join(made.space.ordered(i, row.box.sides[i]))
                for i, name in enumerate(made.space.names)
            }
            for section in made.sections
            for row in section.rows
        ]

        assert [each for each in data if each] == expected
        assert not re.search(r"https?:|src=|url\(|@import|%[A-Z_]+%", page)
        assert "default-src 'none'" in page

    def test_end_of_a_rule_is_shown(self):
        """A row that a time-limited rule decides says until when, in every form."""
        rule = "p, tier1, review, assignee, any, routed, any, any, profile, masked, allow, until 2099-12-31"
        made = matrix(small(policy_csv=RULES.replace("# end", f"{rule}\n# end")))

        assert "policy.csv:10 until 2099-12-31" in as_text(made)
        assert " until 2099-12-31" in as_text(made, golden=True)
        assert "until 2099-12-31" in as_csv(made)
        assert "until 2099-12-31" in as_html(made)
        assert '"until": "2099-12-31"' in json.dumps(as_mapping(made))

    def test_comment_above_changes_no_row_of_the_golden_file(self):
        """Rules that only move keep their names: the diff shows what the change does, and nothing else."""
        moved = small(policy_csv=RULES.replace("p, tier1", "# a word more\np, tier1", 1))

        assert as_text(matrix(moved)) != as_text(matrix(small()))
        assert as_text(matrix(moved), golden=True) == as_text(matrix(small()), golden=True)

    def test_names_that_begin_alike(self):
        """Two rules are never called the same; where six digits would be, both have more, and they alone."""
        one = STARTING.book.rules[0]
        seen = {}
        for number in count():
            made = replace(one, line=number, role=f"r{number}")
            words = ",".join(made.words)
            if (other := seen.setdefault(sha256(words.encode()).hexdigest()[:6], made)) is not made:
                break
        names = names_of([made, other, one])

        assert names[made][:6] == names[other][:6], "the control arm: six digits are not enough"
        assert not names[made].startswith(names[other])
        assert not names[other].startswith(names[made])
        assert len(names[one]) == 6


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path):
        for name, text in PolicyFiles.from_directory(POLICIES).texts.items():
            (tmp_path / name).write_text(text, "utf-8")
        return tmp_path

    def test_update_and_check_are_two_questions(self, folder, capsys):
        """Together they would always agree: nothing is written, and nothing passes."""
        assert run(["policy", "matrix", str(folder), "--update", "--check"]) == 2
        assert "--check" in capsys.readouterr().err
        assert not (folder / "access_matrix.txt").exists()

    def test_update_then_check(self, folder, capsys):
        """What --update writes, --check finds; after a change of rules it fails and shows the difference."""
        assert run(["policy", "matrix", str(folder), "--update"]) == 0
        assert run(["policy", "matrix", str(folder), "--check"]) == 0
        rules = folder / "policy.csv"
        text = rules.read_text("utf-8")
        rules.write_text(
            text.replace("p, any, any, any, any, any, self, any, any, clear, deny\n", ""), "utf-8"
        )
        capsys.readouterr()

        assert run(["policy", "matrix", str(folder), "--check"]) == 1
        out = capsys.readouterr().out
        assert "-clear" in out
        assert "+clear" in out

    def test_forms_and_wrong_words(self, folder, capsys):
        """Every form prints; a role that does not exist is told with the nearest one."""
        for form, begin in (("text", "# The access"), ("csv", "roles,level"), ("html", "<!doctype html>")):
            assert run(["policy", "matrix", str(folder), "--roles", "tier1+billing", "--format", form]) == 0
            assert capsys.readouterr().out.startswith(begin)
        assert run(["policy", "matrix", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["sections"]
        assert run(["policy", "matrix", str(folder), "--roles", "teir1"]) == 2
        assert "did you mean 'tier1'?" in capsys.readouterr().err
        assert run(["policy", "matrix", str(folder), "--roles", "tier1", "--update"]) == 2


def test_agrees_with_a_reading_by_hand():
    """The matrix of the small policy is what a reading of its rules by hand gives, everywhere."""
    lines, includes, _ = naive.parse(RULES)
    sections, _ = matrix_reader.read(as_text(matrix(small())), small().catalog)
    for roles, rows in sections.items():
        for point in product(*space_of(small().catalog).words):
            facts = dict(zip(matrix_reader.FACTS, point[:-1], strict=True))
            field_class = small().catalog.fields[point[-1]].field_class
            expected = naive.decide(lines, includes, roles, facts, point[-1], field_class)
            assert matrix_reader.level_at(rows, point[:-1], point[-1]) == (expected or "withheld")
