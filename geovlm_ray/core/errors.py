"""Errors that a user can act on: each names what was expected and what was found."""


class UserError(Exception):
    """Something the user can mend; the command line prints its message alone, without a traceback."""


class ConfigError(UserError):
    """A configuration key or value is wrong."""


class DataError(UserError):
    """A record, an image or a file of a dataset is wrong."""


class ModelError(UserError):
    """A model folder cannot be used."""


class RunError(UserError):
    """A run cannot start or go on: a directory, a port, a resource or a component."""


class LostError(RunError):
    """A component died, or something that only a dead one had is needed."""


class StartError(LostError):
    """A component died before it was ready: it would do so again."""
