"""What every layer keeps: shapes, dtype, config, saving and training, on any backend and policy."""

import json

import keras
import numpy as np

LIST = list


def drawn(shape, seed=0):
    if isinstance(shape, LIST):
        return [drawn(one, seed + k) for k, one in enumerate(shape)]
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(make, input_shape, output_shape, folder, *, dtype="float32"):
    """Fail where a layer breaks the contract.

    Args:
        make: Makes the layer.
        input_shape: Of its input, or a list of them.
        output_shape: Of its output for that.
        folder: To write into.
        dtype: Of its output.
    """
    layer, features = make(), drawn(input_shape)
    made = layer(features)
    assert tuple(made.shape) == output_shape
    assert keras.backend.standardize_dtype(made.dtype) == dtype
    assert tuple(layer.compute_output_shape(input_shape)) == output_shape
    values = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(made, "float32")))
    assert np.isfinite(values).all()

    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(layer)
    again(features)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(keras.ops.cast(again(features), "float32"), values)

    shapes = input_shape if isinstance(input_shape, LIST) else [input_shape]
    inputs = [keras.Input(shape[1:]) for shape in shapes]
    model = keras.Model(inputs, layer(inputs if isinstance(input_shape, LIST) else inputs[0]))
    model.save(folder / "layer.keras")
    loaded = keras.models.load_model(folder / "layer.keras")
    np.testing.assert_array_equal(
        loaded.predict_on_batch(features), model.predict_on_batch(features)
    )

    # behind another layer, to see that gradients go through this one
    before = [keras.layers.Dense(shape[-1]) for shape in shapes]
    passed = [dense(each) for dense, each in zip(before, inputs, strict=True)]
    model = keras.Model(inputs, layer(passed if isinstance(input_shape, LIST) else passed[0]))
    old = [np.array(weight) for weight in model.get_weights()]
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse", jit_compile=False)
    assert np.isfinite(model.train_on_batch(features, drawn(output_shape, seed=9)))
    for weight, was in zip(model.weights, old, strict=True):
        assert weight.trainable
        assert not np.array_equal(keras.ops.convert_to_numpy(weight), was), weight.path
