"""The broker's protocol, generated from proto/broker/v1 by proto/generate.py; never edit."""
