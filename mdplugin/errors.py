"""The errors a user can cause, each one line: expected, got, where, what to do.

Every function of mdplugin that meets bad input raises a subclass of `MDPluginError`; the command
line prints its text without a traceback and exits with status 3.
"""


class MDPluginError(Exception):
    """Base of all errors that mdplugin raises on purpose."""


class CheckpointError(MDPluginError):
    """The source is not a MACE checkpoint that can be exported."""


class PrecisionError(MDPluginError, ValueError):
    """A precision policy that does not exist or cannot be combined."""


class ArtifactError(MDPluginError):
    """The file is not an artifact that this version can serve."""


class FidelityError(MDPluginError):
    """An artifact disagrees with mace-torch in float64 by more than its policy allows."""


class StructureError(MDPluginError, ValueError):
    """Atoms that the potential cannot evaluate: unknown element, non-finite position, bad cell."""


class NativeError(MDPluginError):
    """The native libraries are missing, stale, or cannot be built."""


class CaseError(MDPluginError):
    """A validation case that cannot be run as stated."""


class Unsupported(CheckpointError):  # noqa: N818 (it is a finding about the network, and export falls back)
    """A network that is a MACE but has a part which the native engine does not know; names the part."""


class BoundError(MDPluginError, ValueError):
    """A bound, or an effort of measurement, that makes no sense."""
