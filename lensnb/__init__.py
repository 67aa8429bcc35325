"""Choose the size of an implantable collamer lens and know how far the choice can be trusted.

The public names live in the modules; they are imported when first used, so that `import lensnb` costs nothing.
"""
__version__ = "0.1.0"

_PUBLIC = {
    "cohort": ("read_eyes", "fetch_badajoz", "training_eyes"),
    "intake": ("quarantine", "write_quarantine"),
    "store": ("Store",),
    "clinics": ("synthetic_clinics",),
    "bounds": ("bound_outcomes", "OutcomeRange", "MonotoneResponse", "StepEffect"),
    "gam": ("VaultGAM",),
    "vault": ("SizingGAM",),
    "formulas": ("formula",),
    "sizing": ("SizingModel",),
    "schema": ("LensnbError", "InputError", "NotEnoughData", "AssumptionError"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = [*_HOME, "__version__"]


def __getattr__(name):
    if name not in _HOME: raise AttributeError(f"module 'lensnb' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f"lensnb.{_HOME[name]}"), name)


def __dir__(): return sorted(__all__)
