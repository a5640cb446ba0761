"""``python -m onnxsurgeon``."""

from onnxsurgeon.cli import main

if __name__ == "__main__":
    main()
