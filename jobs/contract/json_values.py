"""Makes typed values of JSON, with the same errors for whatever a file holds.

msgspec raises what is no MsgspecError, too: UnicodeDecodeError for bytes that are no
UTF-8, UnicodeEncodeError for a key that holds half of a character, RecursionError for
JSON that is nested too deep.
"""

from typing import Any

import msgspec

# what decoding the bytes of a file may raise
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)


def convert_json(value: Any, kind: Any) -> Any:
    """The typed value of parsed JSON. ValidationError for what is none."""
    try:
        return msgspec.convert(value, kind)
    except UnicodeError:
        raise msgspec.ValidationError("a key holds half of a character") from None
    except RecursionError:
        raise msgspec.ValidationError("it is nested too deep") from None
