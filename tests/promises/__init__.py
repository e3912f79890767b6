"""The promises P1 to P10: a test each, and a patch each that breaks it."""
