"""`broker policy whoami`: as whom the broker knows us."""

from __future__ import annotations

from dataclasses import asdict

from broker.cli.output import print_json, print_line
from broker.cli.persons import Administrator, run
from broker.cli.policy.options import Json


def who_am_i(administrator: Administrator, as_json: Json = False) -> None:
    """Show as whom the broker knows you, your roles, and what you may do here.

    \b
    Example:
      broker policy whoami --as anna
      broker policy whoami --target broker:7444 --ca-file ca.pem --cert-file console.pem \\
          --key-file console.key --token-command "oidc-token"
    """
    from broker.client import PolicyClient

    found = run(administrator, PolicyClient, lambda client: client.who_am_i())
    if as_json:
        print_json(asdict(found))
        return
    print_line(f"{found.person.subject} ({found.person.issuer})")
    print_line(f"  groups       {', '.join(found.groups) or 'none'}")
    print_line(f"  roles        {', '.join(found.roles) or 'none'}")
    print_line(f"  through      {found.certificate}")
    print_line(f"  by version   {found.policy_version}")
    services: dict[str, list[str]] = {}
    for method in found.methods:
        service, _, name = method.rpartition(".")[2].partition("/")
        services.setdefault(service, []).append(name)
    for service, names in services.items():
        print_line(f"  {service}: {', '.join(names)}")
