"""``python -m spatialmae``: the command line.

``train`` is taken before the rest is imported: it runs on machines that have torch and numpy and nothing else.
"""

from __future__ import annotations

import sys

from spatialmae.errors import UserError


def main() -> None:
    """Run the command line; bad input ends in one line on stderr and exit status 1."""
    try:
        if sys.argv[1:2] == ["train"]:
            from spatialmae.train.command import main as run

            run(sys.argv[2:])
        else:
            from spatialmae.cli import app

            app()
    except UserError as error:
        message = str(error)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        message = f"{where}{error.strerror or error}; check the path, its permissions, and the space left"
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    else:
        return
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
