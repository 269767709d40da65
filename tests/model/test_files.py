from __future__ import annotations

import json
from pathlib import Path

from caspi.inference.transcriber import Transcriber
from caspi.model.loading import LoadedModel
from caspi.training.checkpoint.files import save_model


def test_a_checkpoint_has_its_maximum_clip_length_under_the_new_key_only(
    fresh_tiny: LoadedModel, tmp_path: Path
) -> None:
    """Models of version 0.1 have the old key `longest_clip`, which is still read."""
    config = fresh_tiny.model.config
    config.longest_clip = 6.0
    assert Transcriber(fresh_tiny).max_window == 6.0
    save_model(fresh_tiny, fresh_tiny.model.state_dict(), tmp_path, 4.0)
    assert Transcriber(fresh_tiny).max_window == 4.0
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["max_clip_seconds"] == 4.0
    assert "longest_clip" not in saved
