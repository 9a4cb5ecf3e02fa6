"""Tells the host about exceptions: a component that ends with one only traps, without a word."""

from collections.abc import Callable
from functools import wraps
from pathlib import PurePath

from componentize_py_types import Err
from wit_world.imports import log


def reported[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The same function; the message and line of its exceptions become part of the policy's fault."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Err:
            # An error of the contract is an answer.
            raise
        except Exception as error:
            at = error.__traceback__
            while at.tb_next:
                at = at.tb_next
            file = PurePath(at.tb_frame.f_code.co_filename).name
            log.panicked(f"{type(error).__name__}: {error}", file, at.tb_lineno)
            raise

    return wrapper
