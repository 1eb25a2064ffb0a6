//! Models one after another: each reads what those before it made, or inputs of the whole, by name.

use super::making::Making;
use super::{Stage, network, program, steps};
use crate::coreml::interface::{FeatureKind, Interface};
use crate::coreml::{Body, CoreMl, CoreMlError};
use crate::custom::CustomOps;

/// Adds a model of any kind.
pub(super) fn stage(model: &CoreMl, custom: &CustomOps, making: &mut Making) -> Result<Stage, CoreMlError> {
    match &model.body {
        Body::Program(program) => program::stage(program.chosen()?, making),
        Body::Network(network) => network::stage(network, &model.interface, custom, making),
        Body::Step(step) => steps::stage(step, &model.interface, making),
        Body::Pipeline(parts) => pipeline(parts, &model.interface, custom, making),
    }
}

fn pipeline(
    parts: &[(String, CoreMl)],
    interface: &Interface,
    custom: &CustomOps,
    making: &mut Making,
) -> Result<Stage, CoreMlError> {
    if let [(_, only)] = parts {
        return stage(only, custom, making);
    }
    let mut features = making.take_names();
    let prefix = making.prefix.clone();
    for (name, part) in parts {
        making.prefix = format!("{prefix}{name}/");
        features.iter().for_each(|(name, id)| making.bind(name, *id));
        let made = stage(part, custom, making)?;
        if let Some((state, _)) = made.states.first() {
            return Err(CoreMlError::value(
                state,
                "states of models in a pipeline cannot be kept; run its parts",
            ));
        }
        making.take_names();
        features.extend(made.outputs);
    }
    making.prefix = prefix;
    let mut whole = Stage::default();
    for feature in &interface.outputs {
        let text = feature.kind == FeatureKind::Text || interface.predicted.as_ref() == Some(&feature.name);
        match features.get(&feature.name) {
            Some(id) => whole.outputs.push((feature.name.clone(), *id)),
            // Names of classes are the caller's part.
            None if text || making.texts.contains(&feature.name) => {}
            None => return Err(CoreMlError::Dangling(feature.name.clone())),
        }
    }
    Ok(whole)
}
