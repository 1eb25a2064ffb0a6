#!/usr/bin/env python3
"""Make golden Core ML classifiers: a program, a network, trees with one number for two classes, a linear model.

    pip install coremltools numpy
    python tools/golden/coreml_classes.py crates/testkit/tests/data/coreml

What they say to which input stands in `crates/kinglet/tests/coreml_ops.rs`, by their definitions: weights are small whole numbers.
"""
import logging
import pathlib
import shutil
import sys
import warnings

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from coremltools.models.tree_ensemble import TreeEnsembleClassifier
from coremltools.proto import Model_pb2

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

#: Scores of three classes: each is one feature more than the one before, less a half.
WEIGHTS = np.float32([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
BIAS = np.float32([0, -0.5, -1])


def program(path):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 4))])
    def build(x):
        return mb.softmax(x=mb.linear(x=x, weight=WEIGHTS, bias=BIAS), axis=-1, name="shares")

    model = ct.convert(
        build, source="milinternal", convert_to="mlprogram", classifier_config=ct.ClassifierConfig([10, 20, 30]),
        minimum_deployment_target=ct.target.iOS16, compute_precision=ct.precision.FLOAT32,
    )
    shutil.rmtree(path, ignore_errors=True)
    model.save(str(path))


def network(path):
    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(4))], [("shares", None)], mode="classifier", disable_rank5_shape_mapping=True
    )
    builder.add_inner_product("score", WEIGHTS, BIAS, 4, 3, True, "x", "scores")
    builder.add_softmax("softmax", "scores", "shares")
    builder.set_class_labels(["ant", "bee", "cat"], predicted_feature_name="classLabel", prediction_blob="shares")
    ct.utils.save_spec(builder.spec, str(path))


def trees(path):
    model = TreeEnsembleClassifier(
        [("a", datatypes.Double()), ("b", datatypes.Double())], ["no", "yes"], ["classLabel", "classProbability"]
    )
    model.set_default_prediction_value([0.0])
    model.add_branch_node(0, 0, 0, 0.5, "BranchOnValueLessThanEqual", 1, 2)
    model.add_leaf_node(0, 1, [0.25])
    model.add_leaf_node(0, 2, [0.75])
    ct.utils.save_spec(model.spec, str(path))


def linear(path):
    spec = Model_pb2.Model()
    spec.specificationVersion = 1
    for name in "ab":
        feature = spec.description.input.add()
        feature.name = name
        feature.type.doubleType.SetInParent()
    label, shares = spec.description.output.add(), spec.description.output.add()
    label.name, shares.name = "label", "shares"
    label.type.stringType.SetInParent()
    shares.type.dictionaryType.stringKeyType.SetInParent()
    spec.description.predictedFeatureName, spec.description.predictedProbabilitiesName = "label", "shares"
    spec.glmClassifier.weights.add().value.extend([2, -1])
    spec.glmClassifier.offset.append(0.5)
    spec.glmClassifier.stringClassLabels.vector.extend(["neg", "pos"])
    ct.utils.save_spec(spec, str(path))


def main(folder):
    program(folder / "classes-numbers.mlpackage")
    network(folder / "classes-names.mlmodel")
    trees(folder / "classes-trees.mlmodel")
    linear(folder / "classes-linear.mlmodel")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
