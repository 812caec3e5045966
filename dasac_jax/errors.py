"""The one exception that users see."""


class UserError(Exception):
    """Something the user can mend: one line saying what is wrong, where, and what to do.

    The command lines print its text without a traceback and exit with code 2.
    """
