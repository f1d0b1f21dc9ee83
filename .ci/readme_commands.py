"""Print the README's command for a newcomer: the first line of its bash blocks that contains a given word.

Usage: python3 .ci/readme_commands.py {demo,pytest} [README.md]
"""

import re
import sys
from pathlib import Path


def bash_lines(text: str) -> list[str]:
    """Return the lines inside the blocks that are fenced as bash, in order."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.strip().startswith("```"):
            inside = not inside and line.strip() == "```bash"
        elif inside:
            lines.append(line.strip())
    return lines


def command(text: str, word: str) -> str:
    """Return the first line with *word* in it; raise where it is absent or could not run as it stands."""
    lines = [line for line in bash_lines(text) if re.search(rf"\b{re.escape(word)}\b", line)]
    if not lines:
        raise LookupError(f"no line of a ```bash block contains the word {word!r}")
    if lines[0].startswith(("#", "$ ", "> ")) or lines[0].endswith("\\"):
        raise ValueError(f"the first line with the word {word!r} is no complete command: {lines[0]}")
    return lines[0]


if __name__ == "__main__":
    word, *rest = sys.argv[1:]
    readme = Path(rest[0] if rest else Path(__file__).parent.parent / "README.md")
    try:
        print(command(readme.read_text(encoding="utf-8"), word))
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"{readme}: {error}")
