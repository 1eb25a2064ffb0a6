//! Trees of decisions, as Core ML stores them.

use std::collections::HashMap;

use kinglet_graph::ops::{Test, TreeEnsemble, TreeNode};

use crate::coreml::{CoreMlError, Fields, Step};

/// The trees of a step.
pub(super) fn read(step: &Step) -> Result<TreeEnsemble, CoreMlError> {
    let params = step.params.message(1)?.unwrap_or_default();
    let nodes = params.messages(1)?;
    let number = |node: &Fields| (node.int(1), node.int(2));
    let places: HashMap<(i64, i64), usize> =
        nodes.iter().enumerate().map(|(i, node)| (number(node), i)).collect();
    let outputs = usize::try_from(params.int(2)).unwrap_or(0).max(1);
    let mut children = vec![false; nodes.len()];
    let mut read = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let (tree, own) = number(node);
        let child = |tag: u32| {
            let place = places.get(&(tree, node.int(tag))).copied();
            place.ok_or_else(|| {
                step.fails(format!("node {own} of tree {tree} has a child that does not exist"))
            })
        };
        let test = match node.int(3) {
            6 => {
                read.push(leaf(node)?);
                continue;
            }
            0 => Test::LessOrEqual,
            1 => Test::Less,
            2 => Test::GreaterOrEqual,
            3 => Test::Greater,
            4 => Test::Equal,
            5 => Test::NotEqual,
            other => return Err(step.fails(format!("node {own} of tree {tree} asks in way {other}"))),
        };
        let (yes, no) = (child(12)?, child(13)?);
        (children[yes], children[no]) = (true, true);
        let feature = usize::try_from(node.int(10)).unwrap_or(usize::MAX);
        read.push(TreeNode::Branch {
            feature,
            test,
            value: node.double(11),
            yes,
            no,
            missing_yes: node.bool(14),
        });
    }
    let roots: Vec<usize> = (0..nodes.len()).filter(|i| !children[*i]).collect();
    let mut base = params.doubles(3);
    base.resize(outputs, 0.0);
    Ok(TreeEnsemble { nodes: read.into(), roots, base })
}

fn leaf(node: &Fields) -> Result<TreeNode, CoreMlError> {
    let adds = node.messages(20)?;
    let one = |add: &Fields| (usize::try_from(add.int(1)).unwrap_or(usize::MAX), add.double(2));
    Ok(TreeNode::Leaf(adds.iter().map(one).collect()))
}

/// A sparse vector, whose places count from 1, with its zeros.
pub(super) fn sparse(vector: &Fields, width: usize) -> Result<Vec<f64>, CoreMlError> {
    let mut values = vec![0.0; width];
    for node in vector.messages(1)? {
        let place = usize::try_from(node.int(1)).ok().and_then(|i| i.checked_sub(1));
        let slot = place.and_then(|i| values.get_mut(i));
        *slot
            .ok_or_else(|| CoreMlError::value("support vector", "a place lies outside of its features"))? =
            node.double(2);
    }
    Ok(values)
}
