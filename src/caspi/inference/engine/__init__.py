"""Decoding: requests in, hypotheses out, as fast as the hardware allows."""
