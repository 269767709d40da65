"""Teaches Qwen3-ASR a language it does not know. Imported as a library it is quiet: configure logging to hear it."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
