"""What docstrings refer to exists: names in them move with the code."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "clreplay").rglob("*.py"))
REFERENCE = re.compile(r":(?:mod|class|func|meth|data|attr):`~?\.*([\w.]+)(?:\(\))?`")


def found(name):
    """Whether a dotted name leads from a module to something in it, or to a field of a dataclass."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            fields = getattr(thing, "__annotations__", {})
            if not hasattr(thing, part):
                return part in fields and part == parts[-1]
            thing = getattr(thing, part)
        return True
    return False


@pytest.mark.parametrize("path", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in MODULES])
def test_references_of_docstrings_lead_somewhere(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    source = path.read_text(encoding="utf-8")
    for name in REFERENCE.findall(source):
        # A method or field of a class of this file.
        member = re.search(rf"^ +(?:def {name}\(|(?:self\.)?{name} *[:=])", source, re.MULTILINE)
        known = any(found(f"{start}{name}") for start in ("", f"{package}.", f"{module}."))
        assert known or member or name.startswith("torch."), f"{name} is nowhere"
