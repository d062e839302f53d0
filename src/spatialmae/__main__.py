"""``python -m spatialmae``: the command line."""

from spatialmae.cli import main

if __name__ == "__main__":
    main()
