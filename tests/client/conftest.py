"""Places for mounts and sockets, as those who serve have them."""

from tests.serve.conftest import private

__all__ = ["private"]
