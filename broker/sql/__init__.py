"""Statements and migrations, as data."""
