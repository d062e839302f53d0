"""The one exception whose message is meant for the user: the command line prints it as a single line."""

from __future__ import annotations


class UserError(Exception):
    """Bad input that the user can mend.

    The message names what is wrong (file, field), why, and the mend, in one line; the command line prints
    it without a traceback and exits with status 1.
    """

    def __init__(self, where: object, problem: str, mend: str) -> None:
        self.where, self.problem, self.mend = str(where), problem, mend
        super().__init__(" ".join(f"{where}: {problem}; {mend}".split()))
