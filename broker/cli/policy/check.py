"""`broker policy check`: what is wrong with a folder of policy files."""

from __future__ import annotations

from broker.cli.output import print_json, say
from broker.cli.policy.options import Directory, Json, read, sentence, summary
from broker.errors import PolicyInvalidError


def check(directory: Directory, as_json: Json = False) -> None:
    """Check policy files without loading them; prints every finding with file and line.

    \b
    Example:
      broker policy check policies
    """
    try:
        files, policy = read(directory)
    except PolicyInvalidError as exc:
        if as_json:
            print_json({"findings": exc.findings})
        raise
    if as_json:
        print_json({**summary(files, policy), "findings": []})
    else:
        say(sentence(policy))
