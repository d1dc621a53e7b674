"""The base class of every error that a user can cause."""


class WorkbookError(Exception):
    """Input, a setting or a machine that cannot be used; the message is one line that says what would be right."""

    several_lines = False  # whether the command line shows the message as it stands, such as a failing cell
