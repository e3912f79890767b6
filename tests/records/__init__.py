"""Tests of the second lock: the guard in the records database, and reading through it."""
