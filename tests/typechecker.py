"""How annotations are checked while tests run: beartype, taking an integer where a float is wanted (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
