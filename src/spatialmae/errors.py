"""The one exception whose message is meant for the user: the command line prints it as a single line."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text as it may go to a terminal or into UTF-8: control characters and bytes that are no UTF-8 escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class UserError(Exception):
    """Bad input that the user can mend.

    The message names what is wrong (file, field), why, and a hint how to mend it, in one line; the command line prints
    it without a traceback and exits with status 1.
    """

    def __init__(self, where: object, problem: str, hint: str) -> None:
        self.where, self.problem, self.hint = str(where), problem, hint
        super().__init__(printable(" ".join(f"{where}: {problem}; {hint}".split())))

    @classmethod
    def of(cls, where: object, error: ValueError, field: str = "") -> UserError:
        """An error of ours, which reads "<problem>; <hint>".

        Args:
            where: that is wrong.
            error: any other than one of ours is raised as it is.
            field: put before the problem.
        """
        problem, separator, hint = str(error).rpartition("; ")
        if not separator:
            raise error
        return cls(where, f"{field}{problem}", hint)
