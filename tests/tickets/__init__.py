"""Tests of the ticket feed and of the ground that tickets give."""
