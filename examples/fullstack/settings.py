"""Where everything is kept: one folder, in it one SQLite file that all processes share."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("FULLSTACK_DATA", HERE / "data"))
DATABASE = DATA / "app.db"
SAMPLE = HERE / "sample" / "orders.csv"
PAGE = HERE / "page" / "dist"
