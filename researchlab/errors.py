"""The one family of errors and warnings that researchlab raises.

Each class also inherits the builtin that a caller would expect, so that ``except ValueError`` keeps working. A message
has four parts: what is wrong, where, what was found against what was expected, and what to do next.
"""

from __future__ import annotations


class ResearchlabError(Exception):
    """Base class of every error that researchlab raises on purpose."""


class InvalidRunIdError(ResearchlabError, ValueError):
    """A run id holds characters that MLflow's search, git's branch names or a shell cannot carry."""


class RunNotFoundError(ResearchlabError, LookupError):
    """No run of that id is in the store that was searched."""


class AmbiguousRunError(ResearchlabError, LookupError):
    """More than one run carries that id."""


class RecordError(ResearchlabError, ValueError):
    """A run's record or trace is missing, broken, or of a version that this researchlab cannot read."""


class MissingPatchError(RecordError):
    """The patch of a run is not among its artifacts."""


class ConfigError(ResearchlabError, ValueError):
    """A configuration file or mapping cannot be read, or holds a key that cannot be logged."""


class SettingsError(ResearchlabError, ValueError):
    """The table ``[tool.researchlab]`` of a repository's ``pyproject.toml`` cannot be read."""


class InputError(ResearchlabError, FileNotFoundError):
    """A file that was declared as an input is not there, or cannot be read."""


class ExchangeError(ResearchlabError, ValueError):
    """An exported run cannot be written, or a file that is to be imported is not a whole, honest one."""


class StoreError(ResearchlabError, ConnectionError):
    """The MLflow store did not answer, or refused what it was asked."""


class GitError(ResearchlabError, RuntimeError):
    """git is missing, failed, or found nothing it could work with."""


class NotARepositoryError(GitError, FileNotFoundError):
    """The folder is not inside a git work tree."""


class SnapshotError(GitError):
    """The working tree could not be captured exactly."""


class RestoreError(GitError):
    """A snapshot could not be brought back exactly, so that nothing was run from it."""


class NotReExecutableError(ResearchlabError, RuntimeError):
    """The record does not say how the process was started, so that it cannot be started again."""


class ArgumentError(ResearchlabError, ValueError):
    """An argument has a value that makes no sense."""


class FieldPathError(ResearchlabError, AttributeError, LookupError, ValueError):
    """A selector's path is malformed or does not lead to anything."""


class KernelCallError(ResearchlabError, TypeError):
    """The arguments of a selected kernel do not fit the kernel's parameters."""


class StepError(ResearchlabError, TypeError):
    """A step function did not return ``(new_state, metrics)``."""


class NonFiniteError(ResearchlabError, FloatingPointError):
    """A leaf of the State or a metric is NaN or infinite, and the Loop was asked to look for it."""


class MetricError(ResearchlabError, TypeError):
    """A metric is not a scalar number."""


class NoActiveRunError(ResearchlabError, RuntimeError):
    """Something was to be logged to the active MLflow run, and there is none."""


class CheckpointError(ResearchlabError, ValueError):
    """A checkpoint cannot be written or does not fit the State it is loaded into."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is not what was written: a file of it is missing, cut off, or has other bytes."""


class CheckpointNotFoundError(ResearchlabError, FileNotFoundError):
    """There is no checkpoint file of that name."""


class DataError(ResearchlabError, ValueError):
    """A provider of batches cannot be brought to where it is asked to go, or cannot give a batch."""


class MissingPackageError(ResearchlabError, ImportError):
    """An optional package is needed and not installed."""


class FrameError(ResearchlabError, ValueError):
    """What a visualizer was given is no image, or one of another size."""


class VideoError(ResearchlabError, OSError):
    """A video cannot be encoded."""


class DisplayError(ResearchlabError, RuntimeError):
    """There is no frame to show, or nothing to show it on."""


class LeafError(ResearchlabError, ValueError):
    """A leaf of a State cannot be read on this host, or two arrays cannot be compared."""


class ResearchlabWarning(UserWarning):
    """Something that the run goes on without, named so that nobody is surprised later."""
