"""``onnxsurgeon`` and ``python -m onnxsurgeon``: Ctrl-C while the program is loaded leaves no traceback."""

import signal


def main() -> None:
    """Run the command line; until a command begins, Ctrl-C ends the process as it ends any other."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from onnxsurgeon.cli import main as run

    run()


if __name__ == "__main__":
    main()
