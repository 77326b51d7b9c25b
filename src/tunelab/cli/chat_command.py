"""`tunelab chat`: a conversation with a trained model on the terminal."""

import argparse
import re
import sys

from tunelab.cli.base_option import add_base_option
from tunelab.language.translation import message, translate

EPILOG = message("""
One line is one message.  Ctrl-C stops an answer, the end of input (Ctrl-D) leaves.  Commands:
  /help    print the commands
  /reset   start a new conversation
  /exit    leave
  //TEXT   send a message that begins with /
Through a pipe only the answers are printed:
  printf 'Who is older, Ann or Bob?\\n' | tunelab chat RUN
""")


COMMAND_HELP = message(
    "/reset starts a new conversation, /exit leaves, /help prints this, //TEXT sends a message that begins with /"
)
SLASH_COMMAND = re.compile(r"/[A-Za-z]+")  # a word that can only be meant as a command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab chat`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument(
        "model", metavar="RUN_OR_DIR", help=translate("a run, a model folder, or an adapter folder of PEFT")
    )
    parser.add_argument("--system", metavar="TEXT", help=translate("system message before the first message"))
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help=translate("longest answer (256)"))
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="X",
        help=translate("0, the default, is greedy decoding; 1 samples"),
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=translate("of the sampling (0)"))
    add_base_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read messages and print answers until the input ends."""
    import torch  # slow to import, and --help does without it

    from tunelab.config.resource_paths import resolve_path
    from tunelab.data.conversation import Message
    from tunelab.errors import ConfigError, DataError
    from tunelab.generation.chat import chat_model_of_run, load_chat_model
    from tunelab.runs.base_weights import allow_changed_base
    from tunelab.runs.console import silence_libraries
    from tunelab.runs.run_dir import RunDirectory
    from tunelab.runs.terminal import terminal_width, wrap_words
    from tunelab.training.load_run import load_run

    faults = []
    if arguments.max_new_tokens < 1:
        faults.append(
            translate(
                "--max-new-tokens={max_new_tokens} is out of range; it must be at least 1",
                max_new_tokens=arguments.max_new_tokens,
            )
        )
    if not 0 <= arguments.temperature <= 10:
        faults.append(
            translate(
                "--temperature={temperature} is out of range; it must be from 0 to 10",
                temperature=arguments.temperature,
            )
        )
    if faults:
        raise ConfigError.listing(faults)
    silence_libraries()
    allow_changed_base(arguments.allow_changed_base)
    folder = resolve_path(arguments.model)
    is_run = folder is not None and RunDirectory(folder).exists()
    model = chat_model_of_run(load_run(folder), folder) if folder and is_run else load_chat_model(arguments.model)
    torch.manual_seed(arguments.seed)
    interactive = sys.stdin.isatty()
    if model.note:
        print(model.note, file=sys.stderr)
    if interactive:
        commands = translate(COMMAND_HELP)
        banner = translate("chat with {model}: one line is one message; {help}", model=arguments.model, help=commands)
        print(wrap_words(banner, terminal_width(sys.stderr), 2), file=sys.stderr)
    initial = [Message("system", arguments.system)] if arguments.system else []
    messages = list(initial)
    while (line := read_message(interactive)) is not None:
        match line.strip():
            case "":
                continue
            case "/exit":
                break
            case "/reset":
                messages = list(initial)
                print(translate("(new conversation)"), file=sys.stderr)
                continue
            case "/help":
                print(f"({translate(COMMAND_HELP)})", file=sys.stderr)
                continue
            case word if word.startswith("//"):
                line = line.replace("//", "/", 1)
            case word if SLASH_COMMAND.fullmatch(word):
                commands = translate(COMMAND_HELP)
                print(translate("({word} is no command; {help})", word=word, help=commands), file=sys.stderr)
                continue
        messages.append(Message("user", line))
        try:
            answer = model.answer(
                messages,
                max_new_tokens=arguments.max_new_tokens,
                temperature=arguments.temperature,
                on_text=print_piece,
                on_messages_dropped=lambda count: print(
                    translate("({count} old [message|messages] no longer [fits|fit])", count=count), file=sys.stderr
                ),
            )
        except DataError as fault:
            messages.pop()
            print(f"({fault})", file=sys.stderr)
            continue
        except KeyboardInterrupt:
            if not interactive:
                raise
            messages.pop()
            print("\n" + translate("(stopped)"), file=sys.stderr)
            continue
        print_piece("\n")
        messages.append(Message("assistant", answer))
    return 0


def read_message(interactive: bool) -> str | None:
    """The next line without its end; None where the input ends."""
    if interactive:
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def print_piece(text: str) -> None:
    """Print a piece of an answer without waiting for a line end."""
    print(text, end="", flush=True)
