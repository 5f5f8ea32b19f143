"""What can go wrong, by name; each error is also the builtin that a caller would expect."""


class CrossviewError(Exception):
    """Base of every error that this package raises on purpose."""


class FrameMismatchError(CrossviewError, ValueError):
    """Two things that must share one LocalFrame do not."""


class GridMismatchError(CrossviewError, ValueError):
    """An array does not have the shape, cell size or extent of its grid."""


class OutOfRegionError(CrossviewError, ValueError):
    """A place is farther from its frame's anchor, or outside of its grid, than the type allows."""


class VolumeTooLargeError(CrossviewError, ValueError):
    """A pose volume would need more memory than its limit."""


class ImpossibleEvidenceError(CrossviewError, ValueError):
    """Combined knowledge leaves no pose possible."""


class PhotoError(CrossviewError, ValueError):
    """A file is not a photo that can be read."""


class PhotoTooLargeError(PhotoError):
    """A photo has more pixels than the limit."""


class MissingLocationError(PhotoError):
    """A photo does not say where it was taken and no prior does."""


class MissingFocalLengthError(PhotoError):
    """A photo does not say its focal length."""


class MapError(CrossviewError, ValueError):
    """A map file cannot be read, or does not cover the place asked for."""


class MapOutsideError(MapError):
    """A map does not reach the place asked for."""


class DatasetError(CrossviewError, ValueError):
    """Somebody's published dataset is incomplete or not laid out as expected."""


class ManifestError(CrossviewError, ValueError):
    """A prepared dataset breaks the manifest's schema; the message names file and row."""


class TileError(ManifestError):
    """A tile is not as an encoder needs it: not square, or too small; the message names it."""


class WeightsError(CrossviewError, ValueError):
    """A weights file is corrupt, or does not fit the network."""


class GalleryError(CrossviewError, ValueError):
    """A gallery is damaged, unfinished, or not of the model that asks it."""


class UnsafePickleError(WeightsError):
    """A pickle asks for something that a file of numbers never needs."""


class MissingBackendError(CrossviewError, ImportError):
    """No network framework is installed for the networks."""


class MissingExtraError(CrossviewError, ImportError):
    """A package is not installed that only some need; the message says how to get it."""


class DownloadError(CrossviewError, OSError):
    """Something could not be fetched; what had been stored before is kept."""


class ProviderDownError(DownloadError, ConnectionError):
    """A server does not answer, or only with errors, after every attempt."""


class ContentError(DownloadError):
    """A server answered, but not with what was asked for."""


class RefusedError(DownloadError, PermissionError):
    """A server refuses us, or its terms do not allow what was asked for."""


class KeyMissingError(CrossviewError, LookupError):
    """A provider needs a key and there is none, or its file can be read by others."""


class FolderBusyError(CrossviewError, BlockingIOError):
    """Another process writes into a folder."""


class StoreError(CrossviewError, OSError):
    """A tile store cannot be read or written."""


class StoreBusyError(StoreError):
    """Another process writes into a tile store."""


class NoSpaceError(StoreError):
    """The disk is full; everything that was committed is kept."""
