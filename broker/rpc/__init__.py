"""The gRPC edge: protobuf in, values through, protobuf out; one chain per port, listed in `chain.py`."""
