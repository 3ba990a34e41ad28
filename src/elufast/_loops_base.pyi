from typing import Any

loops: Any
