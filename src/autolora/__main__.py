"""``python -m autolora``: the command line, as launchers such as ``torchrun -m autolora`` start it."""

from autolora.cli import main

if __name__ == "__main__":
    main()
