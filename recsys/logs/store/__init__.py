"""An embedded store for events that keep arriving: partitioned Parquet, atomic generations, touched users only.

`Store` appends batches and keeps examples and candidate texts up to date; `Reference` freezes what is global.
"""

from recsys.logs.store.reference import Reference
from recsys.logs.store.store import Appended, Store
from recsys.logs.store.writing import TextWriter

__all__ = ["Appended", "Reference", "Store", "TextWriter"]
