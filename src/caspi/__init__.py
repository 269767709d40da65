"""Fine-tunes Qwen3-ASR for a language it does not know. As a library it is quiet: configure logging to see its log."""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
