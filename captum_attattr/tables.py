"""Tables of examples by their public name; see `captum_attattr.published.tables`."""

from captum_attattr.published.tables import Example, read_table

__all__ = ["Example", "read_table"]
