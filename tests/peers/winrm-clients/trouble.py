"""What the scripts about trouble share: orders to winsim, and clients that must fail."""

import json
import os
import urllib.request


def order(what):
    """Makes something happen to the host; `winsim --help` lists what there is."""
    request = urllib.request.Request(os.environ["WINSIM_CONTROL"], json.dumps(what).encode(), method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20):
        pass


def failure(action):
    """The exception that `action` ends with."""
    try:
        action()
    except Exception as error:  # Which one it is, is for the caller to judge.
        return error
    raise AssertionError("it succeeded")


def unavailable(action, error_type):
    """The exception, of `error_type`, that `action` ends with while the service is unavailable."""
    order({"unavailable": 1})
    error = failure(action)
    if not isinstance(error, error_type):
        raise AssertionError(f"no {error_type.__name__}: {error!r}") from error
    return error
