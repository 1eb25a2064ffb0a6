#!/usr/bin/env python3
"""Make golden Core ML pipelines and programs of several functions, with outputs that NumPy computes.

    pip install coremltools safetensors numpy
    python tools/golden/coreml_pipelines.py crates/testkit/tests/data/coreml

Each `NAME.mlmodel` (or `.mlpackage`) stands beside `NAME.safetensors`: inputs and outputs of its run under `0.NAME`.
"""
import logging
import pathlib
import shutil
import sys
import tempfile
import warnings

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from coremltools.proto import Model_pb2
from safetensors.numpy import save_file

from coreml_programs import normal, rng, suppressed

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


def feature(into, name, shape=None, kind="double"):
    made = into.add()
    made.name = name
    if shape is None:
        getattr(made.type, f"{kind}Type").MergeFromString(b"")
        getattr(made.type, f"{kind}Type").SetInParent()
    else:
        made.type.multiArrayType.shape.extend(shape)
        made.type.multiArrayType.dataType = made.type.multiArrayType.FLOAT32


def model(inputs, outputs):
    spec = Model_pb2.Model()
    spec.specificationVersion = 4
    for into, list_ in ((spec.description.input, inputs), (spec.description.output, outputs)):
        for name, shape in list_:
            feature(into, name, *((shape,) if isinstance(shape, (tuple, list)) else (None, shape)))
    return spec


def pipeline(kind, inputs, outputs, stages):
    spec = model(inputs, outputs)
    whole = getattr(spec, kind)
    whole = whole if kind == "pipeline" else whole.pipeline
    for name, stage in stages:
        whole.models.add().CopyFrom(stage)
        whole.names.append(name)
    return spec


def trees():
    """Features of their own, one missing, through a scaler to two trees over three classes."""
    x = np.array([0.5, np.nan, 3.0])
    vector = model([("a", "double"), ("b", "double"), ("c", "int64")], [("all", (3,))])
    for name in "abc":
        column = vector.featureVectorizer.inputList.add()
        column.inputColumn, column.inputDimensions = name, 1
    imputed = model([("all", (3,))], [("whole", (3,))])
    imputed.imputer.imputedDoubleArray.vector.extend([9.0, 2.0, 9.0])
    imputed.imputer.replaceDoubleValue = np.nan
    scaled = model([("whole", (3,))], [("scaled", (3,))])
    scaled.scaler.shiftValue.extend([1.0, -1.0, 0.0])
    scaled.scaler.scaleValue.extend([2.0, 0.5, 1.0])
    forest = model([("scaled", (3,))], [("label", "string"), ("shares", "dictionary")])
    forest.description.predictedFeatureName, forest.description.predictedProbabilitiesName = "label", "shares"
    ensemble = forest.treeEnsembleClassifier
    ensemble.stringClassLabels.vector.extend(["ant", "bee", "cat"])
    ensemble.postEvaluationTransform = 1
    ensemble.treeEnsemble.numPredictionDimensions = 3
    ensemble.treeEnsemble.basePredictionValue.extend([0.1, 0.2, 0.3])

    def node(tree, number, **fields):
        one = ensemble.treeEnsemble.nodes.add()
        one.treeId, one.nodeId = tree, number
        for leaf in fields.pop("leaf", []):
            info = one.evaluationInfo.add()
            info.evaluationIndex, info.evaluationValue = leaf
        for key, value in fields.items():
            setattr(one, key, value)

    node(0, 0, nodeBehavior=0, branchFeatureIndex=0, branchFeatureValue=2.5, trueChildNodeId=1, falseChildNodeId=2)
    node(0, 1, nodeBehavior=6, leaf=[(0, 1.0)])
    node(0, 2, nodeBehavior=6, leaf=[(1, 0.7), (2, 0.2)])
    node(1, 0, nodeBehavior=3, branchFeatureIndex=1, branchFeatureValue=0.25, trueChildNodeId=2, falseChildNodeId=1)
    node(1, 1, nodeBehavior=6, leaf=[(2, 5.0)])
    node(1, 2, nodeBehavior=6, leaf=[(1, 0.5)])
    score = np.array([0.1, 0.2 + 0.7 + 0.5, 0.3 + 0.2])  # features: (0.5 + 1) * 2 = 3, (2 - 1) / 2 = 0.5, 3
    shares = np.exp(score) / np.exp(score).sum()
    spec = pipeline("pipelineClassifier", [("a", "double"), ("b", "double"), ("c", "int64")], [("label", "string"), ("shares", "dictionary")],
                    [("vector", vector), ("imputer", imputed), ("scaler", scaled), ("forest", forest)])
    spec.description.predictedFeatureName, spec.description.predictedProbabilitiesName = "label", "shares"
    return spec, dict(a=x[:1], b=x[1:2], c=x[2:], shares=shares)


def linear():
    """Some features of an array, at length one, to a logistic model, and to support vectors."""
    x, w, vectors, alpha = normal(6), normal(1, 3), normal(4, 3), normal(4)
    picked = model([("x", (6,))], [("some", (3,))])
    picked.arrayFeatureExtractor.extractIndex.extend([4, 0, 2])
    unit = model([("some", (3,))], [("unit", (3,))])
    unit.normalizer.normType = 2
    glm = model([("unit", (3,))], [("risk", "double")])
    glm.description.predictedFeatureName = "risk"
    glm.glmRegressor.weights.add().value.extend(w[0].tolist())
    glm.glmRegressor.offset.append(0.3)
    glm.glmRegressor.postEvaluationTransform = 1
    svr = model([("unit", (3,))], [("near", "double")])
    svr.supportVectorRegressor.kernel.rbfKernel.gamma = 0.8
    for row in vectors:
        svr.supportVectorRegressor.denseSupportVectors.vectors.add().values.extend(row.tolist())
    svr.supportVectorRegressor.coefficients.alpha.extend(alpha.tolist())
    svr.supportVectorRegressor.rho = -0.2
    z = x[[4, 0, 2]] / np.linalg.norm(x[[4, 0, 2]])
    near = (alpha * np.exp(-0.8 * ((vectors - z) ** 2).sum(1))).sum() - 0.2
    spec = pipeline("pipelineRegressor", [("x", (6,))], [("risk", "double"), ("near", "double")],
                    [("pick", picked), ("unit", unit), ("glm", glm), ("svr", svr)])
    spec.description.predictedFeatureName = "risk"
    return spec, dict(x=x, risk=1 / (1 + np.exp(-(w @ z + 0.3))), near=np.array([near]))


def classes():
    """A linear classifier of three classes, the first of which scores nothing."""
    x, w, b = normal(4), normal(2, 4), normal(2)
    spec = model([("x", (4,))], [("label", "int64"), ("shares", "dictionary")])
    spec.description.predictedFeatureName, spec.description.predictedProbabilitiesName = "label", "shares"
    for row in w:
        spec.glmClassifier.weights.add().value.extend(row.tolist())
    spec.glmClassifier.offset.extend(b.tolist())
    spec.glmClassifier.int64ClassLabels.vector.extend([10, 20, 30])
    score = np.concatenate([[0], w @ x + b])
    return spec, dict(x=x, shares=np.exp(score) / np.exp(score).sum())


def detector():
    """Layers that leave boxes, and the choice among them: what an exported detector is."""
    boxes = np.concatenate([rng.uniform(0, 10, (20, 2)), rng.uniform(2, 5, (20, 2))], -1).astype(np.float32)
    scores = rng.uniform(0, 1, (20, 3)).astype(np.float32)
    array = lambda *shape: datatypes.Array(*shape)
    builder = NeuralNetworkBuilder([("places", array(20, 4)), ("marks", array(20, 3))], [("raw_coordinates", array(20, 4)), ("raw_confidence", array(20, 3))],
                                   disable_rank5_shape_mapping=True)
    builder.add_activation("places", "LINEAR", "places", "raw_coordinates", params=[0.1, 0.0])
    builder.add_activation("marks", "LINEAR", "marks", "raw_confidence", params=[1.0, 0.0])
    nms = model([("raw_confidence", (20, 3)), ("raw_coordinates", (20, 4)), ("iouThreshold", "double"), ("confidenceThreshold", "double")],
                [("confidence", (0, 3)), ("coordinates", (0, 4))])
    for port in nms.description.input[2:]:
        port.type.isOptional = True
    choice = nms.nonMaximumSuppression
    choice.iouThreshold, choice.confidenceThreshold = 0.3, 0.5
    choice.pickTop.perClass = True
    choice.confidenceInputFeatureName, choice.coordinatesInputFeatureName = "raw_confidence", "raw_coordinates"
    choice.iouThresholdInputFeatureName, choice.confidenceThresholdInputFeatureName = "iouThreshold", "confidenceThreshold"
    choice.confidenceOutputFeatureName, choice.coordinatesOutputFeatureName = "confidence", "coordinates"
    choice.stringClassLabels.vector.extend(["ant", "bee", "cat"])
    inputs = [("places", (20, 4)), ("marks", (20, 3)), ("iouThreshold", "double"), ("confidenceThreshold", "double")]
    spec = pipeline("pipeline", inputs, [("confidence", (0, 3)), ("coordinates", (0, 4))], [("network", builder.spec), ("choice", nms)])
    for port in spec.description.input[2:]:
        port.type.isOptional = True
    kept_boxes, kept_scores, _, count = suppressed(boxes[None] * np.float32(0.1), scores[None], 0.3, 0.5, 20, True)
    n = count[0]
    return spec, dict(places=boxes, marks=scores, confidence=kept_scores[0, :n], coordinates=kept_boxes[0, :n])


def functions(root):
    """Two functions over one weight; the second is the usual one."""
    w, x = normal(3, 3), normal(2, 3)

    def program(scale):
        @mb.program(input_specs=[mb.TensorSpec(shape=(2, 3))], opset_version=ct.target.iOS18)
        def one(x):
            return mb.mul(x=mb.linear(x=x, weight=w), y=np.float32(scale), name="y")

        return ct.convert(one, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32, skip_model_load=True, convert_to="mlprogram")

    with tempfile.TemporaryDirectory() as folder:
        descriptor = ct.utils.MultiFunctionDescriptor()
        for name, scale in (("plain", 1.0), ("twice", 2.0)):
            program(scale).save(f"{folder}/{name}.mlpackage")
            descriptor.add_function(f"{folder}/{name}.mlpackage", "main", name)
        descriptor.default_function_name = "twice"
        shutil.rmtree(root / "functions.mlpackage", ignore_errors=True)
        ct.utils.save_multifunction(descriptor, str(root / "functions.mlpackage"))
    save_file({"0.x": x, "0.y": (x @ w.T * 2).astype(np.float32)}, root / "functions.safetensors")


def main():
    root = pathlib.Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    for build in [trees, linear, classes, detector]:
        spec, tensors = build()
        name = f"pipeline-{build.__name__}"
        (root / f"{name}.mlmodel").write_bytes(spec.SerializeToString(deterministic=True))
        save_file({f"0.{k}": np.array(v, np.float32, order="C") for k, v in tensors.items()}, root / f"{name}.safetensors")
    functions(root)


if __name__ == "__main__":
    main()
