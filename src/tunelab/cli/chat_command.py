"""`tunelab chat`: talk with a trained model."""

import argparse
import sys

EPILOG = """
One line is one message.  /reset forgets what was said, /exit or the end of input leaves, Ctrl-C stops an answer.
Through a pipe only the answers are printed:
  printf 'Who is older, Ann or Bob?\\n' | tunelab chat RUN
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.epilog = EPILOG
    parser.add_argument("model", metavar="RUN_OR_DIR", help="a run, a model folder, or an adapter folder of PEFT")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the first message")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (256)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="X", help="0, the default, takes the likeliest; 1 draws"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (0)")


def run(arguments: argparse.Namespace) -> int:
    """Talk until the input ends."""
    import torch  # these are slow, and --help does without

    from tunelab.config.resource_paths import resolve_path
    from tunelab.data.conversation import Message
    from tunelab.errors import ConfigError, DataError
    from tunelab.generation.chat import chat_model_of_run, load_chat_model
    from tunelab.runs.console import silence_libraries
    from tunelab.training.load_run import load_run

    faults = []
    if arguments.max_new_tokens < 1:
        faults.append(f"--max-new-tokens={arguments.max_new_tokens} is out of range; it must be at least 1")
    if not 0 <= arguments.temperature <= 10:
        faults.append(f"--temperature={arguments.temperature} is out of range; it must be from 0 to 10")
    if faults:
        raise ConfigError.listing(faults)
    silence_libraries()
    folder = resolve_path(arguments.model)
    is_run = folder is not None and (folder / "run.json").is_file()
    speaker = chat_model_of_run(load_run(folder), folder) if folder and is_run else load_chat_model(arguments.model)
    torch.manual_seed(arguments.seed)
    watched = sys.stdin.isatty()
    if speaker.note:
        print(speaker.note, file=sys.stderr)
    opening = [Message("system", arguments.system)] if arguments.system else []
    said = list(opening)
    while (line := read_message(watched)) is not None:
        match line.strip():
            case "":
                continue
            case "/exit":
                break
            case "/reset":
                said = list(opening)
                print("(forgotten)", file=sys.stderr)
                continue
        said.append(Message("user", line))
        try:
            answer = speaker.answer(
                said,
                max_new_tokens=arguments.max_new_tokens,
                temperature=arguments.temperature,
                tell=print_piece,
                forgotten=lambda count: print(f"({count} old messages no longer fit)", file=sys.stderr),
            )
        except DataError as fault:
            said.pop()
            print(f"({fault})", file=sys.stderr)
            continue
        except KeyboardInterrupt:
            if not watched:
                raise
            said.pop()
            print("\n(stopped)", file=sys.stderr)
            continue
        print_piece("\n")
        said.append(Message("assistant", answer))
    return 0


def read_message(watched: bool) -> str | None:
    """The next line without its end; None where the input ends."""
    if watched:
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def print_piece(text: str) -> None:
    """Print a piece of an answer at once."""
    print(text, end="", flush=True)
