"""Runs a training script unchanged and measures its steps from inside.

    python probe.py [--vocab N] [--skip 3] [--steps 33] -- SCRIPT.py ARGUMENTS

It counts the token ids other than padding that enter the input embedding in training, and hears the end of every
optimizer step by torch's global hook.  After `--steps` steps it prints one line `BENCH {json}` and ends the process.
Tokens per second are those of the steps after `--skip`; with one thread, tokens per second of CPU time move little with
other work on the machine.  `first_step_s` counts from the start of the process, imports and data included.
"""

import argparse
import json
import os
import resource
import runpy
import sys
import time
from typing import Any


def seconds_since_start() -> float:
    """Seconds since this process started, by the clock of the kernel."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime", encoding="utf-8") as file:
        up = float(file.read().split()[0])
    return up - ticks / os.sysconf("SC_CLK_TCK")


class Probe:
    """Hears embeddings and optimizer steps of this process.

    Attributes:
        ids: Token ids other than padding so far, and all of them.
        ends: Wall time, CPU time and `ids` at the end of each optimizer step.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.arguments = arguments
        self.began = time.perf_counter() - seconds_since_start()
        self.ids = (0, 0)
        self.ends: list[tuple[float, float, int, int]] = []
        plain = torch.nn.Embedding.forward
        probe = self

        def forward(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
            if self.training and torch.is_grad_enabled() and arguments.vocab in (0, self.num_embeddings):
                probe.ids = (probe.ids[0] + int((ids != arguments.pad).sum()), probe.ids[1] + ids.numel())
            return plain(self, ids)

        torch.nn.Embedding.forward = forward  # type: ignore[method-assign]
        register_optimizer_step_post_hook(self.end_step)

    def end_step(self, *of_the_hook: Any) -> None:
        """Note the end of a step; the last one ends the process."""
        self.ends.append((time.perf_counter(), time.process_time(), *self.ids))
        if len(self.ends) >= self.arguments.steps:
            self.report()

    def report(self) -> None:
        """Print the figures and leave, whatever the script would still do."""
        import torch

        skip = self.arguments.skip
        (wall, cpu, tokens, ids), (last_wall, last_cpu, last_tokens, last_ids) = self.ends[skip - 1], self.ends[-1]
        steps = len(self.ends) - skip
        figures = {
            "tokens_per_s": round((last_tokens - tokens) / (last_wall - wall), 1),
            "tokens_per_cpu_s": round((last_tokens - tokens) / (last_cpu - cpu), 1),
            "tokens_per_step": round((last_tokens - tokens) / steps, 1),
            "padding": round(1 - (last_tokens - tokens) / max(1, last_ids - ids), 3),
            "cpu_ms_per_step": round(1e3 * (last_cpu - cpu) / steps, 2),
            "first_step_s": round(self.ends[0][0] - self.began, 2),
            "first_step_cpu_s": round(self.ends[0][1], 2),
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "threads": torch.get_num_threads(),
            "steps": len(self.ends),
        }
        print("BENCH " + json.dumps(figures), flush=True)
        sys.stderr.flush()
        os._exit(0)


def main() -> None:
    """Run the script that stands after `--`."""
    cut = sys.argv.index("--")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=0, help="rows of the input embedding (0: of every embedding)")
    parser.add_argument("--pad", type=int, default=0, help="id of the padding token")
    parser.add_argument("--skip", type=int, default=3, help="steps before the measured ones")
    parser.add_argument("--steps", type=int, default=33, help="steps in all")
    probe = Probe(parser.parse_args(sys.argv[1:cut]))
    sys.argv = sys.argv[cut + 1 :]
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    runpy.run_path(sys.argv[0], run_name="__main__")
    if len(probe.ends) > probe.arguments.skip:
        probe.report()
    sys.exit("probe: the script ended before enough optimizer steps")


if __name__ == "__main__":
    main()
