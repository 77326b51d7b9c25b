"""Places in the checkout, wherever a test lies."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"  # programs that tests start lie here
