"""The strict readers refuse, with a name and a place, whatever Casbin would drop or misread."""

import os
import re
from itertools import pairwise

import pytest

from broker.errors import PolicyInvalidError
from broker.policy import PolicyFiles, load
from broker.policy.findings import MAX_FINDINGS
from tests.policy.sample import ADMIN, FACTS, LIMITS, RULES, TEXTS, edited, files, findings, small

DENY = "p, any, any, any, any, any, self, any, contact, any, deny"
ALLOW = "p, tier1, resolve, assignee, any, routed, any, any, profile, clear, allow"

SPOILT_LINES = {
    # C2
    "a rule with a value too few": (ALLOW, ALLOW.removesuffix(", allow"), "field-count"),
    "a rule with a value too many": (ALLOW, ALLOW + ", allow", "field-count"),
    "a g line with a value too many": ("g, idp:front, tier1", "g, idp:front, tier1, tier2", "field-count"),
    "a g line with a value too few": ("g, idp:front, tier1", "g, idp:front", "field-count"),
    "a type and nothing else": ("g, idp:front, tier1", "g", "field-count"),
    "a trailing comma": (ALLOW, ALLOW + ",", "blank-value"),
    "a blank value where any was meant": (ALLOW, ALLOW.replace("any", " ", 1), "blank-value"),
    "a blank role": ("g, idp:front, tier1", "g, idp:front, ", "stray-space"),
    "a group without a name": ("g, idp:front, tier1", "g, idp:, tier1", "blank-value"),
    # C3: every one of these turns this denial into an allow in pycasbin
    "an effect with a capital": (DENY, DENY.replace("deny", "Deny"), "unknown-effect"),
    "a quoted effect": (DENY, DENY.replace("deny", '"deny"'), "quoted"),
    "an effect in single quotes": (DENY, DENY.replace("deny", "'deny'"), "quoted"),
    "a comment behind the effect": (DENY, DENY + " # since March", "trailing-comment"),
    "a semicolon behind the effect": (DENY, DENY + ";", "trailing-comment"),
    "a comment sign in a value": (DENY, DENY.replace("contact", "con#tact"), "trailing-comment"),
    "a type with a capital": (DENY, "P" + DENY[1:], "unknown-type"),
    "a type that Casbin would drop": (DENY, "p2" + DENY[1:], "unknown-type"),
    "a generated type": (DENY, "g2, customer.email, profile", "unknown-type"),
    "no type": (DENY, DENY[3:], "unknown-type"),
    "a space before the line": (DENY, " " + DENY, "stray-space"),
    "a space before a comment": ("# who", " # who", "stray-space"),
    "a tab before the line": (DENY, "\t" + DENY, "tab"),
    "tabs between values": (DENY, DENY.replace(", ", "\t"), "tab"),
    "a tab in a comment": ("# who", "#\twho", "tab"),
    "a line ended by CR LF": (DENY, DENY + "\r", "carriage-return"),
    "a byte order mark before the line": (DENY, "\ufeff" + DENY, "byte-order-mark"),
    "a NUL": (DENY, DENY + "\0", "nul"),
    "a no-break space": (DENY, DENY.replace(" deny", "\u00a0deny"), "character"),
    "a zero-width space": (DENY, DENY.replace("deny", "de\u200bny"), "invisible-character"),
    "text turned around in a comment": ("# who", "# \u202ewho", "invisible-character"),
    "a line separator in a comment": ("# who", "# who\u2028" + ALLOW, "invisible-character"),
    "a Cyrillic look-alike": (DENY, DENY.replace("deny", "d\u0435ny"), "character"),
    "a full-width comma": (DENY, DENY.replace(", deny", "\uff0c deny"), "character"),
    # C4
    "an unbalanced bracket that swallows commas": (DENY, DENY.replace("contact", "contact("), "character"),
    "a closing bracket": (DENY, DENY.replace("contact", "contact]"), "character"),
    # C7
    "Python in place of a word": (ALLOW, ALLOW.replace("resolve", "True) or (True"), "character"),
    "Python with a comment": (ALLOW, ALLOW.replace("resolve", "True) #"), "trailing-comment"),
    "a dunder": (ALLOW, ALLOW.replace("resolve", "__class__"), "unknown-purpose"),
    "a power": (ALLOW, ALLOW.replace("resolve", "9**9**9"), "wildcard"),
    # C8, C9
    "a regular expression": (ALLOW, ALLOW.replace("resolve", "(a+)+$"), "character"),
    "an anchored expression": (ALLOW, ALLOW.replace("resolve", "^resolve$"), "character"),
    "a dot for any character": (ALLOW, ALLOW.replace("resolve", "res.lve"), "unknown-purpose"),
    "a brace glob": (ALLOW, ALLOW.replace("resolve", "{a,b}{a,b}"), "character"),
    "a longer word": (ALLOW, ALLOW.replace("resolve", "resolve-all"), "unknown-purpose"),
    "the head of a word": (ALLOW, ALLOW.replace("resolve", "resol"), "unknown-purpose"),
    # C12
    "a star for the role": (ALLOW, ALLOW.replace("tier1", "*"), "wildcard"),
    "a star for the field": (ALLOW, ALLOW.replace("profile", "*"), "wildcard"),
    "a star behind a head": (ALLOW, ALLOW.replace("profile", "customer.*"), "wildcard"),
    "an allow for any role": (ALLOW, ALLOW.replace("tier1", "any"), "wildcard-allow"),
    "an allow for any field": (ALLOW, ALLOW.replace("profile", "any"), "wildcard-allow"),
    # words
    "an unknown role": (ALLOW, ALLOW.replace("tier1", "teir1"), "unknown-role"),
    "an unknown purpose": (ALLOW, ALLOW.replace("resolve", "resolv"), "unknown-purpose"),
    "an unknown relation": (ALLOW, ALLOW.replace("assignee", "asignee"), "unknown-relation"),
    "an unknown ticket kind": (DENY, DENY.replace("any, self", "genral, self"), "unknown-provenance"),
    "an unknown provenance": (ALLOW, ALLOW.replace("routed", "route"), "unknown-provenance"),
    "an unknown party": (DENY, DENY.replace("self", "myself"), "unknown-opened-by"),
    "an unknown presence": (ALLOW, ALLOW.replace("any, profile", "there, profile"), "unknown-presence"),
    "an unknown class": (ALLOW, ALLOW.replace("profile", "profil"), "unknown-field"),
    "an unknown field": (ALLOW, ALLOW.replace("profile", "customer.nam"), "unknown-field"),
    "a kind in place of a field": (ALLOW, ALLOW.replace("profile", "customer"), "unknown-field"),
    "an unknown level": (ALLOW, ALLOW.replace("clear", "clera"), "unknown-level"),
    "an unknown effect": (ALLOW, ALLOW.replace("allow", "permit"), "unknown-effect"),
    # sense
    "a line twice": (ALLOW, ALLOW + "\n" + ALLOW.replace(", ", ","), "duplicate"),
    "an allow and its denial": (ALLOW, ALLOW + "\n" + ALLOW.replace("allow", "deny"), "contradiction"),
    "a denial of masked alone": (DENY, DENY.replace("any, deny", "masked, deny"), "deny-masked"),
    "a g line to a role without rules": ("g, idp:front, tier1", "g, idp:front, tier3", "role-without-rules"),
    "a role without a group": ("g, tier2, tier1", "g, tier2, tier1\ng, tier3, tier1", "role-without-group"),
    # K8: nothing but groups and roles is ever a subject
    "a person in a g line": ("g, idp:back, tier2", "g, https://idp.example|ada, tier2", "character"),
    "a subject in a g line": ("g, idp:back, tier2", "g, Ada, tier2", "not-a-group"),
    "a SPIFFE id in a g line": ("g, idp:back, tier2", "g, spiffe://broker.dev/x, tier2", "not-a-group"),
    "a role named like a role set": ("g, idp:back, tier2", "g, idp:back, @tier1", "role-name"),
    "a role with a plus": ("g, idp:back, tier2", "g, idp:back, tier1+tier2", "role-name"),
    "a role with a capital": ("g, idp:back, tier2", "g, idp:back, Tier2", "role-name"),
    "a role called any": ("g, idp:back, tier2", "g, idp:back, any", "reserved-word"),
    # C11
    "a role that includes itself": ("g, tier2, tier1", "g, tier2, tier2", "role-cycle"),
    "roles that include each other": ("g, tier2, tier1", "g, tier2, tier1\ng, tier1, tier2", "role-cycle"),
    # C1
    "a last line without its end": ("# end\n", "# end", "end-missing"),
    "no end mark": ("# end\n", "", "end-missing"),
    "a rule behind the end": ("# end\n", "# end\n" + DENY.replace("self", "any") + "\n", "end-missing"),
    "a line too long": ("# who", "# " + "w" * 1000, "line-too-long"),
}  # fmt: skip


@pytest.mark.attack("C2", "C3", "C4", "C7", "C8", "C9", "C11", "C12", "K8")
@pytest.mark.parametrize(("old", "new", "name"), SPOILT_LINES.values(), ids=SPOILT_LINES)
def test_spoilt_line_is_refused_where_it_stands(old, new, name):
    """A line that differs in one thing from a good one is refused by name, with file and line."""
    small()  # the control arm: unspoilt, it loads
    spoilt = edited("policy.csv", old, new)

    found = findings(spoilt)

    named = [finding for finding in found if finding.endswith(f"[{name}]")]
    assert named, found
    assert re.match(r"policy\.csv:\d+: .+ \[[a-z-]+\]", named[0])
    at = int(named[0].split(":")[1])
    assert spoilt.texts["policy.csv"].split("\n")[at - 1] not in RULES.split("\n") or name in {
        "end-missing",
        "role-cycle",
    }


SUGGESTIONS = {
    "a role": ("p, tier1, resolve", "p, teir1, resolve", "did you mean 'tier1'?"),
    "a purpose": ("p, tier1, resolve", "p, tier1, resolv", "did you mean 'resolve'?"),
    "a class": ("profile, clear", "profiel, clear", "did you mean 'profile'?"),
    "a field": ("profile, clear", "customer.emial, clear", "did you mean 'customer.email'?"),
    "a relation": ("resolve, assignee", "resolve, asignee", "did you mean 'assignee'?"),
    "a level": ("profile, clear", "profile, claer", "did you mean 'clear'?"),
    "an effect with a capital": ("any, deny", "any, Deny", "did you mean 'deny'?"),
    "a word like nothing": ("routed", "xyzzy", "known: any, imported, peer, routed, self, unknown"),
}


@pytest.mark.parametrize(("old", "new", "suggestion"), SUGGESTIONS.values(), ids=SUGGESTIONS)
def test_unknown_word_brings_the_nearest_known_one(old, new, suggestion):
    """A misspelt word is answered with the word that was meant, or with those there are."""
    assert any(suggestion in finding for finding in findings(edited("policy.csv", old, new)))


@pytest.mark.attack("C1")
@pytest.mark.parametrize("name", ["policy.csv", "admin.csv", "catalog.yaml", "limits.yaml"])
def test_file_cut_short_anywhere_is_refused(name):
    """Of all beginnings of a file only the whole file loads: a lost denial would be an allow."""
    text = TEXTS[name]
    load(files(), "1")  # the control arm

    for end in range(len(text)):
        assert any(found.startswith(name) for found in findings(edited(name, text, text[:end]))), end


EMPTY = {
    "0 bytes": "",
    "blank lines": "\n\n \n",
    "only a byte order mark": "\ufeff",
    "only comments": "# nothing yet\n# p, tier1, …\n# end\n",
    "only the end mark": "# end\n",
}


@pytest.mark.attack("C1")
@pytest.mark.parametrize("text", EMPTY.values(), ids=EMPTY)
def test_policy_that_says_nothing_is_refused(text):
    """A policy without a rule is not served, however it came about."""
    assert [f for f in findings(files(policy_csv=text)) if f.startswith("policy.csv:1: ")]


def test_comments_and_blank_lines_are_kept_apart():
    """Whole-line comments may hold anything that can be read, and change nothing."""
    commented = RULES.replace("# who", '# "who"; sees: (what) é *always*, p, x #\n\n# who')

    assert small(policy_csv=commented).book.rules[0].words == small().book.rules[0].words


def test_spaces_around_values_are_free():
    """Values may be aligned with spaces; it is the words that count."""
    wide = RULES.replace(", ", "   ,  ")

    assert [r.words for r in small(policy_csv=wide).book.rules] == [r.words for r in small().book.rules]


@pytest.mark.attack("C11")
def test_chain_of_roles_ends_before_casbin_gives_up():
    """The longest chain that loads is one that Casbin follows to its end; one more is refused."""

    def chain(length):
        roles = [f"r{i}" for i in range(length)]
        lines = [f"g, idp:top, {roles[0]}", *(f"g, {a}, {b}" for a, b in pairwise(roles))]
        rule = f"p, {roles[-1]}, resolve, assignee, any, any, any, any, profile, clear, allow"
        return "\n".join([*lines, rule, "# end", ""])

    longest = small(policy_csv=chain(9), limits_yaml=LIMITS.replace("tier1", "r0"))

    assert longest.decide(frozenset({"r0"}), FACTS, ["customer.name"]).allowed
    for length in (10, 15):
        assert any("[role-chain]" in f for f in findings(files(policy_csv=chain(length))))


@pytest.mark.attack("C11")
def test_a_hundred_thousand_roles_are_refused():
    """Roles are bounded, whether or not the bytes would fit."""
    many = "".join(f"g, idp:{i}, r{i}\n" for i in range(100_000))
    with pytest.raises(PolicyInvalidError, match=r"too-large|too-many"):
        load(files(policy_csv=many + RULES), "1")

    some = "".join(f"g, idp:{i}, r{i}\n" for i in range(300))
    assert any("[too-many-roles]" in f for f in findings(files(policy_csv=some + RULES)))


@pytest.mark.attack("X9")
def test_a_million_lines_are_refused_unread(tmp_path):
    """A policy beyond its cap is refused after the cap's bytes, and one of short lines after some lines."""
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, "utf-8")
    PolicyFiles.from_directory(tmp_path)  # the control arm
    os.truncate(tmp_path / "policy.csv", 1 << 40)  # a hole: whoever reads it all never ends

    with pytest.raises(PolicyInvalidError, match="too-large"):
        PolicyFiles.from_directory(tmp_path)
    assert any("[too-many-lines]" in f for f in findings(files(policy_csv="\n" * 1_000_000 + RULES)))


@pytest.mark.attack("C18")
def test_rules_beyond_the_cap_are_refused():
    """One rule beyond 10,000 is refused."""
    line = "p, tier1, resolve, assignee, any, routed, any, any, profile, clear, allow"
    many = "".join(f"{line[: -len('allow')]}allow{i}\n" for i in range(10_001))

    assert any("too-many" in f for f in findings(files(policy_csv=many + RULES)))


def test_findings_are_all_told_up_to_a_bound():
    """An editor hears of every mistake in every file at once, and of no more than can be read."""
    several = findings(
        files(
            policy_csv=RULES.replace("tier1, resolve", "teir1, resolv"),
            limits_yaml=LIMITS.replace("20", "0"),
            admin_csv=ADMIN.replace("allow", "Allow"),
        )
    )
    endless = findings(files(policy_csv="p, a\n" * 5_000 + RULES))

    assert {f.split(":")[0] for f in several} == {"policy.csv", "limits.yaml", "admin.csv"}
    assert sum("unknown-" in f for f in several) >= 4
    assert len(endless) == MAX_FINDINGS + 1


class TestFiles:
    """The five files, together or not at all."""

    @pytest.fixture
    def directory(self, tmp_path):
        """Gives a directory with a good policy."""
        for name, text in TEXTS.items():
            (tmp_path / name).write_text(text, "utf-8")
        return tmp_path

    def test_directory_and_mapping_are_the_same(self, directory):
        """A policy has one digest, wherever it was read from."""
        (directory / "policy.csv~").write_text("an editor's copy is left alone")

        assert PolicyFiles.from_directory(directory).digest == PolicyFiles.from_mapping(TEXTS).digest

    def test_digest_tells_every_character_and_its_file(self):
        """Two policies that differ anywhere differ in their digest, moved text included."""
        digests = {files().digest, files(policy_csv=RULES + "\n").digest}
        digests.add(files(policy_csv=RULES[:-1], limits_yaml="\n" + LIMITS).digest)

        assert len(digests) == 3

    @pytest.mark.attack("C1")
    @pytest.mark.parametrize("name", TEXTS)
    def test_missing_file(self, directory, name):
        """Four of the five files are no policy."""
        (directory / name).unlink()

        with pytest.raises(PolicyInvalidError, match=f"{name}:1: .*file-missing"):
            PolicyFiles.from_directory(directory)
        with pytest.raises(PolicyInvalidError, match=f"{name}:1: .*file-missing"):
            PolicyFiles.from_mapping({n: t for n, t in TEXTS.items() if n != name})

    def test_file_that_is_none_of_the_five(self):
        """A stored policy holds no file that nobody reads."""
        with pytest.raises(PolicyInvalidError, match="file-unknown"):
            PolicyFiles.from_mapping({**TEXTS, "extra.csv": "x"})

    def test_pipe_in_place_of_a_file(self, directory):
        """A FIFO is refused, not waited for."""
        (directory / "policy.csv").unlink()
        os.mkfifo(directory / "policy.csv")

        with pytest.raises(PolicyInvalidError, match="file-irregular"):
            PolicyFiles.from_directory(directory)

    def test_folder_in_place_of_a_file(self, directory):
        """A folder of that name is refused as what it is."""
        (directory / "policy.csv").unlink()
        (directory / "policy.csv").mkdir()

        with pytest.raises(PolicyInvalidError, match="file-irregular"):
            PolicyFiles.from_directory(directory)

    def test_bytes_that_are_not_utf8(self, directory):
        """Latin-1 is refused with its line."""
        (directory / "policy.csv").write_bytes(b"# one\n# caf\xe9\n" + RULES.encode())

        with pytest.raises(PolicyInvalidError, match=r"policy\.csv:2: is not UTF-8"):
            PolicyFiles.from_directory(directory)
