"""Tickets: what helpdesks say in signed events, and the ground that they give an agent.

    words.py     the forms of ids and words
    events.py    claims of a verified event -> values; the format, documented
    feed.py      applies events, heartbeats and snapshots (role broker_feed)
    ground.py    what an agent has to do with a ticket, as of now (role broker_access)
    importer.py  first load from a CSV file (role broker_feed)

The statements are in sql/tickets.sql, the tables and functions in sql/migrations/010_tickets.sql.
"""

from broker.tickets.feed import Freshness, Outcome, Published, Resynced, TicketFeed
from broker.tickets.ground import AssignedTicket, FeedState, Page, Standing, Tickets

__all__ = [
    "AssignedTicket",
    "FeedState",
    "Freshness",
    "Outcome",
    "Page",
    "Published",
    "Resynced",
    "Standing",
    "TicketFeed",
    "Tickets",
]
