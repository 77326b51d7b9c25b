"""Train one model.  `python train.py --help` says what you can change; the same as `tunelab train`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while packages load ends at once, without a traceback

from tunelab.cli.launch import main

if __name__ == "__main__":
    main()
