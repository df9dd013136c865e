"""Text with blocks between markers, `<!-- KIND:NAME --> ... <!-- /KIND:NAME -->` -> the text with fresh blocks."""

import re
from collections.abc import Callable, Mapping

from mdplugin.errors import CaseError


def fill_blocks(text: str, writers: Mapping[str, Callable[[str], str]], where: str) -> str:
    """The text with what the writers say between the markers.

    Args:
        writers: KIND -> what writes the block of a NAME. Blocks of other kinds stay as they are.
        where: the file, for errors.

    Raises:
        CaseError: no block of these kinds.
    """
    kinds = "|".join(map(re.escape, writers))
    markers = re.compile(rf"(<!-- ({kinds}):(\w+) -->\n).*?(<!-- /\2:\3 -->)", re.DOTALL)
    if not markers.search(text):
        raise CaseError(
            f"{where}: expected a block <!-- {kinds}:NAME --> ... <!-- /{kinds}:NAME -->, got none"
        )

    def replace(match: re.Match) -> str:
        begin, kind, name, end = match.groups()
        return f"{begin}{writers[kind](name)}\n{end}"

    return markers.sub(replace, text)
