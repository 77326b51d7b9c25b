"""Stands in for train.py in tests of the search engine: as many overrides, no torch.  What it does hangs on `x`."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    folder = Path(given["hydra.run.dir"])
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    stored = folder / "config.json"
    if "resume" in given:
        settings = json.loads(stored.read_text())
    else:
        settings = given
        stored.write_text(json.dumps(settings))
    with (folder.parent / "started.txt").open("a") as log:  # one short write: whole lines even from several processes
        log.write(f"{given['trial.id']} {'resumed' if 'resume' in given else 'new'}\n")
    x, act = float(settings.get("x", 0)), settings.get("act", "work")
    card = {"status": "running", "reason": None, "seconds": None}
    (folder / "run.json").write_text(json.dumps(card))
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    deadline = time.monotonic() + float(settings.get("sleep", 0))
    while time.monotonic() < deadline:
        if asked and act != "deaf":
            (folder / "checkpoints" / "last.ckpt").touch()
            return 143
        time.sleep(0.01)
    if act == "silent":
        (folder / "run.json").unlink()
        return 0
    if act == "die" and "resume" not in given:
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "diverge":
        (folder / "run.json").write_text(json.dumps({"status": "diverged", "reason": "loss nan", "seconds": 0.1}))
        return 1
    if act == "memory":
        print("torch.OutOfMemoryError: CUDA out of memory", file=sys.stderr)
        return 1
    if act == "config":
        print("ConfigError: cannot run this", file=sys.stderr)
        return 2
    value = float("nan") if act == "nan" else (x - 0.3) ** 2
    ended = {"status": "finished", "reason": None, "seconds": 0.1, "best": {"step": 1, "value": value}}
    ended |= {"memory": {"process_mb": 100 + 100 * x, "gpu_mb": None}, "model": {"parameters": int(1000 * x)}}
    (folder / "metrics.json").write_text(json.dumps({"val/loss": value, "val/f1": 1 - x}))
    (folder / "run.json").write_text(json.dumps(ended))
    return 0


if __name__ == "__main__":
    sys.exit(main())
