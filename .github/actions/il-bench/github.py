"""What the action asks of GitHub, with the token IL_TOKEN; nothing but the standard library.

github.py file PATH REF OUTPUT     take a file as it is at a commit or branch; exit status 3: it is not there
github.py comment NUMBER FILE      make FILE the one comment of IL_NAME on a pull request
github.py pull OWNER:BRANCH SHA    print the numbers of the open pull requests from there that are at SHA
"""

import json
import os
import posixpath
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: GitHub's bound for a comment, in characters.
LONGEST = 65_536


def main(words: list[str]) -> int:
    """Return the exit status; what GitHub refuses is one annotation."""
    commands = {"file": file, "comment": comment, "pull": pull}
    try:
        return commands[words[0]](*words[1:])
    except urllib.error.HTTPError as error:
        print(f"::error title=il_bench::GitHub says {error.code} {error.reason} to {words[0]}")
    except OSError as error:
        print(f"::error title=il_bench::GitHub cannot be reached for {words[0]}: {error}")
    return 1


def file(path: str, ref: str, output: str) -> int:
    """Fetch a file by the API: a checkout without its token, or of one commit only, has no other branch."""
    place = f"/contents/{urllib.parse.quote(posixpath.normpath(path))}?ref={urllib.parse.quote(ref, safe='')}"
    try:
        content = ask("GET", place, accept="application/vnd.github.raw+json")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        print(
            f"::notice title=il_bench::{path} is not at {ref} yet, so the baselines are those of the checkout"
        )
        return 3
    Path(output).write_bytes(content)
    return 0


def comment(number: str, path: str) -> int:
    """Write over our comment if there is one, else add it."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", number):
        raise SystemExit("no number of a pull request")
    key = f"<!-- il-bench: {re.sub(r'[^A-Za-z0-9._-]', '-', os.environ['IL_NAME'])} -->"
    body = {"body": f"{key}\n{Path(path).read_text(encoding='utf-8')}"[:LONGEST]}
    try:
        for each in pages(f"/issues/{number}/comments"):
            if (each["user"] or {}).get("type") == "Bot" and (each["body"] or "").startswith(f"{key}\n"):
                ask("PATCH", f"/issues/comments/{each['id']}", body)
                return 0
        ask("POST", f"/issues/{number}/comments", body)
    except urllib.error.HTTPError as error:
        if error.code != 403:
            raise
        print("::notice title=il_bench::no comment: the token may not write, as in runs from forks")
    return 0


def pull(head: str, sha: str) -> int:
    """Find pull requests by what GitHub itself says of a run: numbers in an artifact are anybody's."""
    query = urllib.parse.urlencode({"state": "open", "head": head})
    for each in pages(f"/pulls?{query}"):
        if each["head"]["sha"] == sha:
            print(each["number"])
    return 0


def pages(place: str) -> Iterator[dict[str, Any]]:
    """Everything in a list that GitHub hands out in pages."""
    joint, page, found = "&" if "?" in place else "?", 1, [{}]
    while found:
        found = json.loads(ask("GET", f"{place}{joint}per_page=100&page={page}"))
        yield from found
        page += 1


def ask(method: str, place: str, body: object = None, accept: str = "application/vnd.github+json") -> bytes:
    """Send one request about this repository, and return the answer's content."""
    address = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}{place}"
    headers = {"Authorization": f"Bearer {os.environ['IL_TOKEN']}", "Accept": accept}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        content: bytes = answer.read()
        return content


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
