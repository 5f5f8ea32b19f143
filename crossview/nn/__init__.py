"""Networks, in keras.ops only; importing this package needs Keras and one installed backend."""

from crossview.errors import MissingBackendError

try:
    import keras  # noqa: F401
except ImportError as _error:
    raise MissingBackendError(
        f"The networks need a Keras backend, and importing Keras failed ({_error}). Install one: "
        "pip install 'crossview[cpu]' (TensorFlow), or pip install 'crossview[jax]' and set "
        "KERAS_BACKEND=jax."
    ) from _error
