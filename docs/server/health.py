"""Says by its exit status whether the server in this container answers: 0 if it reads its zoo, 1 if not."""

import base64
import sys
import urllib.error
import urllib.request
from pathlib import Path

ADDRESS = "http://127.0.0.1:7860/api/v1/zoo"
LOGIN_FILE = Path("/run/secrets/login")
TIMEOUT = 10.0  # seconds


def is_healthy(address: str, login_file: Path) -> bool:
    """Whether a server answers with its zoo, asked with the login of a file if there is one."""
    request = urllib.request.Request(address)  # noqa: S310 (always this machine)
    if login_file.exists():
        login = base64.b64encode(login_file.read_text("utf-8").strip().encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError) as error:
        print(f"{address}: expected the server's zoo, found: {error}", file=sys.stderr)  # noqa: T201
        return False


if __name__ == "__main__":
    sys.exit(not is_healthy(ADDRESS, LOGIN_FILE))
