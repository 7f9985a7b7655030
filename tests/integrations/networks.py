"""Small Keras models and data that the tests of this folder share."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")


def circles(samples=400):
    x = np.random.default_rng(0).standard_normal((samples, 2)).astype("float32")
    return x, (np.linalg.norm(x, axis=1) > 1.2).astype("int64")


def article(clip=None):
    """What the classic articles build, as they write it."""
    from keras.initializers import VarianceScaling
    from keras.layers import AlphaDropout, BatchNormalization, Dense, Dropout, LeakyReLU
    from keras.optimizers import SGD

    model = keras.Sequential(
        [
            keras.Input((2,)),
            Dense(16, activation="relu", kernel_initializer="he_normal"),
            BatchNormalization(),
            Dense(12, kernel_initializer=VarianceScaling(scale=2.0, mode="fan_avg", distribution="uniform")),
            LeakyReLU(negative_slope=0.2),
            Dropout(0.2),
            Dense(10, activation="selu", kernel_initializer="lecun_normal"),
            AlphaDropout(0.1),
            Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(loss="binary_crossentropy", optimizer=SGD(learning_rate=0.05, momentum=0.9, **(clip or {})), metrics=["accuracy"])
    return model


def deep_sigmoid(depth=8):
    hidden = [keras.layers.Dense(20, activation="sigmoid") for _ in range(depth)]
    model = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.SGD(learning_rate=0.1, momentum=0.9))
    return model


def convolutional():
    from keras.layers import BatchNormalization, Conv2D, Dense, Flatten, MaxPooling2D

    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            Conv2D(8, 3, padding="same", activation="relu"),
            BatchNormalization(),
            MaxPooling2D(),
            Conv2D(16, 3, activation="tanh"),
            Flatten(),
            Dense(10),
        ]
    )
