"""What verifying costs, the first time and every other: `python -m tests.bench.tokens`.

Each round measures all of them in turn, so that a busy machine is busy for all; medians of the
rounds, with the lowest and the highest.
"""

import statistics
import tempfile
import time
from pathlib import Path

from broker.authn import ToolVerifier
from broker.dev.ca import DevelopmentAuthority
from tests.jose.forge import AGENT, BROKER, TOOL, AgentWorld, GrantWorld

ROUNDS, COLD, WARM = 9, 60, 6000
DESK = "spiffe://support.example/desk"


def timed(count, call):
    """Gives microseconds per call."""
    start = time.perf_counter()
    for index in range(count):
        call(index)
    return (time.perf_counter() - start) / count * 1e6


def measures(folder):
    """Gives name, number of calls and call of each measure."""
    (folder / "a").mkdir()
    (folder / "g").mkdir()
    agents, grants = AgentWorld(folder / "a"), GrantWorld(folder / "g")
    entry = [f"Bearer {agents.token()}"]
    grant = grants.grants.mint(grants.grant())
    certificate = DevelopmentAuthority.create().client(DESK).cert_pem
    tools = ToolVerifier("support.example", {DESK}.__contains__, time.time)

    def await_now(coroutine):
        """Runs a coroutine that never waits, without the event loop's own cost."""
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError

    def verify_agent(_):
        return await_now(agents.verifier.verify(entry))

    def verify_agent_cold(_):
        agents.verifier._verified._entries.clear()
        return verify_agent(_)

    def verify_grant(_):
        return grants.grants.verify(grant, tool=TOOL, agent=AGENT, audience=BROKER)

    def verify_grant_cold(_):
        grants.grants._verified._entries.clear()
        return verify_grant(_)

    def verify_tool(_):
        return tools.verify(certificate)

    def verify_tool_cold(_):
        tools._remembered.clear()
        return verify_tool(_)

    return {
        "access token": (verify_agent_cold, verify_agent),
        "grant": (verify_grant_cold, verify_grant),
        "certificate": (verify_tool_cold, verify_tool),
        "mint a grant": (lambda _: grants.grants.mint(grants.grant()), None),
    }


def spread(values):
    """Writes median, lowest and highest."""
    return f"{statistics.median(values):8.1f} ({min(values):.1f} to {max(values):.1f})"


def main():
    """Prints the table."""
    with tempfile.TemporaryDirectory() as name:
        table = measures(Path(name))
        found = {row: ([], []) for row in table}
        for _ in range(ROUNDS):
            for row, (cold, warm) in table.items():
                found[row][0].append(timed(COLD, cold))
                if warm:
                    found[row][1].append(timed(WARM, warm))
    print(f"microseconds per call: median of {ROUNDS} rounds (lowest to highest)")
    for row, (cold, warm) in found.items():
        line = f"  {row:14} first {spread(cold):30}"
        if warm:
            ratio = statistics.median(cold) / statistics.median(warm)
            line += f" again {spread(warm):28} {ratio:5.0f} times less"
        print(line)


if __name__ == "__main__":
    main()
